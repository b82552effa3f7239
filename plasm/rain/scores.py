"""Scores of forecasts by lead time, as forecasters compute them, from counts pooled over clips and processes.

An event is a rate at or above a threshold. Cells that are missing in any forecast or in the truth are taken out before
anything is counted, so that all forecasts are measured on the same ones.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plasm.data.radar import normalize
from plasm.files import require

THRESHOLDS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""mm/h."""
SCALES = (1.0, 4.0, 16.0, 64.0)
"""Kilometres."""
_COUNTS = ("hits", "misses", "false_alarms", "correct_negatives")
_BANDS = 10
_LEAST_SQUARE = 16


class RainScores:
    """Counts of forecasts, and the scores that follow.

    Args:
        methods: Names of the forecasts.
        leads: T'.
        km: Kilometres from cell to cell.
        thresholds: mm/h.
        scales: Sides of the neighbourhoods of the fractions skill score, in km.
    """

    def __init__(
        self,
        methods: Sequence[str],
        leads: int,
        km: float,
        thresholds: Sequence[float] = THRESHOLDS,
        scales: Sequence[float] = SCALES,
    ) -> None:
        self.methods, self.leads, self.km = list(methods), leads, km
        self.thresholds, self.scales = tuple(thresholds), tuple(scales)
        shape = len(self.methods), leads

        def zeros(*sizes: int) -> Tensor:
            return torch.zeros(*shape, *sizes, dtype=torch.float64)

        self.sums = {
            "counts": zeros(len(self.thresholds), len(_COUNTS)),
            # Of (S_f - S_o)^2 and of S_f^2 + S_o^2.
            "fractions": zeros(len(self.thresholds), len(self.scales), 2),
            # Of the absolute error, and of the cells.
            "errors": zeros(2),
            # Of the forecast's and of the observed power, in octaves of the wavelength.
            "power": zeros(_BANDS, 2),
        }

    def update(self, forecasts: Mapping[str, np.ndarray], truth: np.ndarray) -> None:
        """Count one clip.

        Args:
            forecasts: Of each method, (T', H, W) in mm/h, NaN where missing.
            truth: (T', H, W), likewise.

        Raises:
            ValueError: If the shapes differ, or a method is missing.
        """
        if set(forecasts) != set(self.methods):
            raise ValueError(f"wanted forecasts of {', '.join(self.methods)}, got {', '.join(forecasts)}")
        for name, rates in forecasts.items():
            if rates.shape != truth.shape or len(truth) != self.leads:
                raise ValueError(f"{name} has rates of {rates.shape}, wanted {(self.leads, *truth.shape[1:])}")
        for lead in range(self.leads):
            valid = np.isfinite(truth[lead])
            for rates in forecasts.values():
                valid &= np.isfinite(rates[lead])
            if not valid.any():
                continue
            # Where nothing is valid nothing happens: of some composites that is most.
            rows, columns = (_span(np.flatnonzero(valid.any(axis))) for axis in (1, 0))
            valid, observed = valid[rows, columns], truth[lead, rows, columns]
            square = largest_square(valid)
            power = self._power(observed, square)
            windows = [max(1, round(scale / self.km)) for scale in self.scales]
            events = [valid & (observed >= np.float32(t)) for t in self.thresholds]
            smooth = [[_fractions(event, window) for window in windows] for event in events]
            for number, name in enumerate(self.methods):
                rates = forecasts[name][lead, rows, columns]
                for at, threshold in enumerate(self.thresholds):
                    forecast = valid & (rates >= np.float32(threshold))
                    both = int((forecast & events[at]).sum())
                    said, seen = int(forecast.sum()), int(events[at].sum())
                    counts = both, seen - both, said - both, int(valid.sum()) - said - seen + both
                    self.sums["counts"][number, lead, at] += torch.tensor(counts, dtype=torch.float64)
                    if not said and not seen:
                        continue
                    for size, window in enumerate(windows):
                        ours, theirs = _fractions(forecast, window)[valid], smooth[at][size][valid]
                        pair = ((ours - theirs) ** 2).sum(), (ours**2).sum() + (theirs**2).sum()
                        self.sums["fractions"][number, lead, at, size] += torch.tensor(pair, dtype=torch.float64)
                error = np.abs(rates[valid].astype(np.float64) - observed[valid]).sum()
                self.sums["errors"][number, lead] += torch.tensor([error, valid.sum()], dtype=torch.float64)
                if power is not None:
                    ours_power = self._power(rates, square)
                    assert ours_power is not None
                    self.sums["power"][number, lead] += torch.from_numpy(np.stack([ours_power, power], 1))

    def add_up(self, add: Callable[[Tensor], Tensor]) -> None:
        """Pool the counts of several processes, which ``add`` sums."""
        self.sums = {name: add(values) for name, values in self.sums.items()}

    def _power(self, rates: np.ndarray, square: tuple[int, int, int]) -> np.ndarray | None:
        """Power of the pixels of a square in octaves of the wavelength: 2 to 4 km, 4 to 8, ..."""
        top, left, side = square
        if side < _LEAST_SQUARE:
            return None
        power = radial_power(normalize(rates[top : top + side, left : left + side]))
        waves = side * self.km / np.arange(1, len(power))
        band = np.floor(np.log2(waves)).astype(int) - 1
        # Cells below a kilometre have shorter waves than 2 km, and a continent longer ones than 2048.
        known = (band >= 0) & (band < _BANDS)
        return np.bincount(band[known], power[1:][known], minlength=_BANDS)

    def rows(self, minutes: float) -> list[dict[str, Any]]:
        """A row for each method, lead time and threshold, with counts and scores.

        Args:
            minutes: From lead time to lead time.

        Returns:
            NaN where a score has no value: nothing was forecast, or nothing happened.
        """
        found = []
        for number, method in enumerate(self.methods):
            for lead in range(self.leads):
                error, cells = self.sums["errors"][number, lead].tolist()
                for at, threshold in enumerate(self.thresholds):
                    counts = self.sums["counts"][number, lead, at].tolist()
                    fractions = self.sums["fractions"][number, lead, at].tolist()
                    found.append(
                        {
                            "method": method,
                            "lead_minutes": (lead + 1) * minutes,
                            "threshold_mm_h": threshold,
                            **{name: int(count) for name, count in zip(_COUNTS, counts, strict=True)},
                            **categorical(*counts),
                            **{
                                f"fss_{scale:g}km": 1 - _ratio(*pair)
                                for scale, pair in zip(self.scales, fractions, strict=True)
                            },
                            "mae": _ratio(error, cells),
                        }
                    )
        return found

    def spectra(self, minutes: float) -> list[dict[str, Any]]:
        """A row for each method, lead time and octave: power of the forecast over that of the truth."""
        return [
            {
                "method": method,
                "lead_minutes": (lead + 1) * minutes,
                "wavelength_from_km": 2.0 ** (band + 1),
                "wavelength_to_km": 2.0 ** (band + 2),
                "power_ratio": _ratio(*self.sums["power"][number, lead, band].tolist()),
            }
            for number, method in enumerate(self.methods)
            for lead in range(self.leads)
            for band in range(_BANDS)
            if self.sums["power"][0, :, band, 1].sum() > 0
        ]


def _span(positions: np.ndarray) -> slice:
    """From the first of sorted positions to the last."""
    return slice(int(positions[0]), int(positions[-1]) + 1)


def categorical(hits: float, misses: float, false_alarms: float, correct_negatives: float) -> dict[str, float]:
    """Scores of a contingency table: CSI, POD, FAR, HSS and frequency bias; NaN where one has no value."""
    chance = (hits + misses) * (misses + correct_negatives) + (hits + false_alarms) * (false_alarms + correct_negatives)
    return {
        "csi": _ratio(hits, hits + misses + false_alarms),
        "pod": _ratio(hits, hits + misses),
        "far": _ratio(false_alarms, hits + false_alarms),
        "hss": _ratio(2 * (hits * correct_negatives - misses * false_alarms), chance),
        "bias": _ratio(hits + false_alarms, hits + misses),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _fractions(event: np.ndarray, window: int) -> np.ndarray:
    """Share of the event in a square window around each cell; beyond the edge, as at missing cells, there is none."""
    values: np.ndarray = event.astype(np.float32)
    if window == 1:
        return values
    return np.asarray(require("scipy.ndimage").uniform_filter(values, window, mode="constant"))


def largest_square(valid: np.ndarray) -> tuple[int, int, int]:
    """(top, left, side) of the largest square of cells that are all valid, the first of several; side 0 of none."""
    sums = np.zeros((valid.shape[0] + 1, valid.shape[1] + 1), np.int64)
    sums[1:, 1:] = valid.cumsum(0).cumsum(1)

    def find(side: int) -> tuple[int, int] | None:
        inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
        positions = np.argwhere(inside == side * side)
        return (int(positions[0][0]), int(positions[0][1])) if len(positions) else None

    least, most, best = 0, min(valid.shape), (0, 0)
    while least < most:
        side = (least + most + 1) // 2
        if (position := find(side)) is not None:
            least, best = side, position
        else:
            most = side - 1
    return *best, least


def radial_power(field: np.ndarray) -> np.ndarray:
    """Radially averaged power spectrum of a square field (n, n): mean power at wave numbers 0 to below n / 2."""
    n = field.shape[0]
    power = np.abs(np.fft.fft2(field.astype(np.float64))) ** 2 / field.size
    waves = np.fft.fftfreq(n, 1 / n)
    radius = np.round(np.hypot(waves[:, None], waves)).astype(int).ravel()
    count = n // 2 + n % 2
    sums = np.bincount(radius, power.ravel())[:count]
    return sums / np.bincount(radius)[:count]
