from typing import Any

import numpy as np
import pytest
import torch

from plasm.data.radar import normalize
from plasm.rain import RainScores
from plasm.rain.scores import categorical, largest_square, radial_power

pytest.importorskip("scipy")
NAN = float("nan")


def row(scores: RainScores, method: str, threshold: float, lead: int = 1) -> dict[str, Any]:
    (found,) = (
        r
        for r in scores.rows(5)
        if (r["method"], r["threshold_mm_h"], r["lead_minutes"]) == (method, threshold, 5 * lead)
    )
    return found


def test_figures_worked_out_by_hand() -> None:
    truth = np.array([[[1.0, 1.0, 0.5, 0.0], [2.0, NAN, 0.0, 0.99], [0.0, 0.0, 5.0, 0.0]]], np.float32)
    model = np.array([[[1.0, 0.9, 1.0, 0.0], [3.0, 9.0, NAN, 1.0], [0.0, 0.0, 0.0, 0.0]]], np.float32)
    other = np.array([[[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, NAN, 0.0, 0.0]]], np.float32)
    scores = RainScores(["model", "other"], 1, 1.0)
    scores.update({"model": model, "other": other}, truth)
    # Left of the 12 cells are those but (1, 1), (1, 2) and (2, 1): 9. Equal to the threshold is an event.
    # At 1 mm/h: (0, 0) and (1, 0) are hits, (0, 1) and (2, 2) are missed, (0, 2) and (1, 3) are false alarms.
    found = row(scores, "model", 1.0)
    assert [found[key] for key in ("hits", "misses", "false_alarms", "correct_negatives")] == [2, 2, 2, 3]
    assert found["csi"] == pytest.approx(2 / 6)
    assert (found["pod"], found["far"], found["bias"]) == (0.5, 0.5, 1.0)
    assert found["hss"] == pytest.approx(2 * (2 * 3 - 2 * 2) / (4 * 5 + 4 * 5))
    # 0, .1, .5, 0, 1, .01, 0, 5, 0.
    assert found["mae"] == pytest.approx(6.61 / 9, rel=1e-5)
    # At .5: hits (0, 0), (0, 1), (0, 2), (1, 0), (1, 3), missed (2, 2).
    found = row(scores, "model", 0.5)
    assert [found[key] for key in ("hits", "misses", "false_alarms", "correct_negatives")] == [5, 1, 0, 3]
    # FSS at one cell: 1 - (misses + false alarms) / (2 hits + misses + false alarms).
    assert found["fss_1km"] == pytest.approx(1 - 1 / 11)
    found = row(scores, "other", 1.0)
    assert (found["csi"], found["pod"], found["bias"]) == (0, 0, 0)
    assert np.isnan(found["far"])
    # 0.1 in float32 is an event at 0.1.
    scores = RainScores(["model"], 1, 1.0)
    rates = np.full((1, 2, 2), 0.1, np.float32)
    scores.update({"model": rates}, rates)
    assert row(scores, "model", 0.1)["hits"] == 4


def test_the_fractions_skill_score_of_a_displaced_cell() -> None:
    truth, moved = np.zeros((2, 1, 9, 9), np.float32)
    truth[0, 4, 3], moved[0, 4, 5] = 1, 1
    scores = RainScores(["moved"], 1, 1.0, scales=(1, 3, 5))
    scores.update({"moved": moved}, truth)
    found = row(scores, "moved", 1.0)
    assert found["fss_1km"] == 0
    # Of 3 x 3 windows 3 of 9 see both: (9 + 9 - 2 * 3) / 18 differ.
    assert found["fss_3km"] == pytest.approx(1 - 12 / 18)
    assert found["fss_5km"] == pytest.approx(1 - (50 - 2 * 15) / 50)


def test_counts_are_pooled_over_clips_and_processes() -> None:
    rng = np.random.default_rng(0)
    clips = [(rng.exponential(2, (2, 3, 20, 20)).astype(np.float32)) for _ in range(3)]
    together = RainScores(["a"], 3, 1.0)
    apart = [RainScores(["a"], 3, 1.0) for _ in clips]
    for (forecast, truth), alone in zip(clips, apart, strict=True):
        together.update({"a": forecast}, truth)
        alone.update({"a": forecast}, truth)
    summed = {name: sum(alone.sums[name] for alone in apart[1:]) for name in apart[0].sums}
    names = iter(apart[0].sums)
    apart[0].add_up(lambda values: values + summed[next(names)])
    for name, values in together.sums.items():
        torch.testing.assert_close(apart[0].sums[name], values)


def test_against_pysteps_where_nothing_is_missing_or_equal() -> None:
    pysteps = pytest.importorskip("pysteps")
    rng = np.random.default_rng(0)
    truth, forecast = (rng.exponential(2, (2, 32, 32)) + 1e-4).astype(np.float32)
    scores = RainScores(["a"], 1, 1.0)
    scores.update({"a": forecast[None]}, truth[None])
    table = pysteps.verification.detcatscores.det_cat_fct(forecast, truth, 2.0)
    found = row(scores, "a", 2.0)
    for name in ("csi", "pod", "far", "hss", "bias"):
        assert found[name] == pytest.approx(table[name.upper()])
    for scale in (1, 4, 16, 64):
        fss = pysteps.verification.spatialscores.fss(forecast, truth, 2.0, scale)
        assert found[f"fss_{scale}km"] == pytest.approx(fss, rel=1e-4)
    for size in (32, 31):
        expected = pysteps.utils.spectral.rapsd(truth[:size, :size], fft_method=np.fft)
        np.testing.assert_allclose(radial_power(truth[:size, :size]), expected, rtol=1e-6)


def test_smoothed_rain_loses_power_at_short_waves_alone() -> None:
    from scipy.ndimage import gaussian_filter

    truth = np.random.default_rng(0).exponential(3, (1, 64, 64)).astype(np.float32)
    truth[:, :, 50:] = NAN
    smooth = np.nan_to_num(gaussian_filter(np.nan_to_num(truth), (0, 1, 1)))
    scores = RainScores(["same", "smooth"], 1, 1.0)
    scores.update({"same": truth, "smooth": smooth}, truth)
    ratio = {(r["method"], r["wavelength_from_km"]): r["power_ratio"] for r in scores.spectra(5)}
    assert ratio["same", 2.0] == pytest.approx(1)
    assert ratio["smooth", 2.0] < 0.3 < ratio["smooth", 16.0]


@pytest.mark.parametrize("km", [0.25, 1.0, 100.0])
def test_waves_beyond_the_bands_count_in_none(km: float) -> None:
    truth = np.random.default_rng(0).exponential(3, (1, 64, 64)).astype(np.float32)
    scores = RainScores(["same"], 1, km)
    scores.update({"same": truth}, truth)
    power = radial_power(normalize(truth[0]))[1:]
    waves = 64 * km / np.arange(1, len(power) + 1)
    for band, (low, high) in {0: (2, 4), 9: (1024, 2048)}.items():
        expected = power[(waves >= low) & (waves < high)].sum()
        assert scores.sums["power"][0, 0, band].tolist() == pytest.approx([expected, expected])


def test_the_largest_square() -> None:
    valid = np.zeros((10, 12), bool)
    assert largest_square(valid)[2] == 0
    valid[2:9, 3:8] = True
    assert largest_square(valid) == (2, 3, 5)
    valid[4, 5] = False
    top, left, side = largest_square(valid)
    assert side == 4
    assert valid[top : top + side, left : left + side].all()
    assert largest_square(np.ones((3, 7), bool)) == (0, 0, 3)


def test_nothing_forecast_and_nothing_seen_has_no_score() -> None:
    assert all(np.isnan(value) for value in categorical(0, 0, 0, 9).values())
    scores = RainScores(["a"], 1, 1.0)
    scores.update({"a": np.full((1, 4, 4), NAN)}, np.zeros((1, 4, 4)))
    assert np.isnan(row(scores, "a", 1.0)["mae"])
    with pytest.raises(ValueError, match="wanted forecasts of a, got b"):
        scores.update({"b": np.zeros((1, 4, 4))}, np.zeros((1, 4, 4)))
    with pytest.raises(ValueError, match="a has rates of"):
        scores.update({"a": np.zeros((2, 4, 4))}, np.zeros((1, 4, 4)))
