"""Rain as pictures: maps on a scale of mm/h, scores by lead time, and the performance diagram."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plasm.data.radar import FLOOR
from plasm.files import atomic_write, import_without_settings

_LEVELS = (FLOOR, 0.5, 1, 2, 5, 10, 20, 30, 50, 100)
# From light blue by green and yellow to red and violet, as weather maps have it; one for each step of the scale.
_COLOURS = (
    "#a6d8f0",
    "#5fb0e6",
    "#2a7fd0",
    "#1d9b4b",
    "#8cc63f",
    "#f7e01f",
    "#f9a01b",
    "#ee3a24",
    "#b5121b",
    "#8b2fa0",
)
_MISSING = "0.75"
_COLUMNS = 4
"""Lead times drawn."""
_SHOWN = 400
"""Cells of the longer side in a picture."""


def draw_forecast(
    rows: Mapping[str, np.ndarray], minutes: Sequence[float], observed_now: np.ndarray, file: Path, title: str = ""
) -> None:
    """Draw rates side by side: a column a lead time, a row a forecast or the truth.

    Args:
        rows: By title, (T', H, W) in mm/h, NaN where missing.
        minutes: Lead time of each of the T'.
        observed_now: (H, W), the last observed frame, drawn first in each row.
        file: PNG to write.
        title: On top.
    """
    import_without_settings("matplotlib")
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.figure import Figure

    chosen = np.unique(np.linspace(0, len(minutes) - 1, min(_COLUMNS, len(minutes))).round().astype(int))
    covered = _covered([observed_now, *(frames[at] for frames in rows.values() for at in chosen)])
    observed_now = observed_now[covered]
    rows = {name: frames[(slice(None), *covered)] for name, frames in rows.items()}
    height, width = observed_now.shape
    wide = 2.1
    figure = Figure(
        figsize=(wide * (1 + len(chosen)) + 1.2, max(1.2, wide * height / width) * len(rows) + 0.6),
        layout="constrained",
    )
    axes = figure.subplots(len(rows), 1 + len(chosen), squeeze=False)
    colours = ListedColormap(_COLOURS)
    scale = BoundaryNorm(_LEVELS, colours.N, extend="max")
    step = max(1, max(height, width) // _SHOWN)
    drawn: Any = None
    for number, ((name, frames), line) in enumerate(zip(rows.items(), axes, strict=True)):
        shown = [(0.0, observed_now), *((minutes[at], frames[at]) for at in chosen)]
        for axis, (lead, frame) in zip(line, shown, strict=True):
            axis.set_facecolor(_MISSING)
            coarse = _coarse(frame, step)
            axis.imshow(np.isfinite(coarse), cmap="gray_r", vmin=-10, vmax=10**6, alpha=np.isfinite(coarse) * 1.0)
            drawn = axis.imshow(np.ma.masked_less(coarse, FLOOR), cmap=colours, norm=scale, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if number == 0:
                axis.set_title("observed, now" if lead == 0 else f"+{lead:g} min", fontsize=12)
        line[0].set_ylabel(name, fontsize=12)
    bar = figure.colorbar(drawn, ax=axes, ticks=_LEVELS, shrink=0.9, aspect=30)
    bar.set_label("mm/h (gray: no coverage)", fontsize=12)
    bar.ax.set_yticklabels([f"{level:g}" for level in _LEVELS], fontsize=11)
    if title:
        figure.suptitle(title, fontsize=12)
    _save(figure, file)


def _covered(frames: Sequence[np.ndarray]) -> tuple[slice, slice]:
    """Rows and columns outside of which no frame has a value; all where none has any."""
    seen = np.any([np.isfinite(frame) for frame in frames], 0)
    if not seen.any():
        return slice(None), slice(None)
    (top, *_, bottom), (left, *_, right) = (np.flatnonzero(seen.any(axis)).repeat(2) for axis in (1, 0))
    return slice(top, bottom + 1), slice(left, right + 1)


def _coarse(frame: np.ndarray, step: int) -> np.ndarray:
    """The most rain in each step x step cells: a thin shower must not vanish between those that are drawn."""
    if step == 1:
        return frame
    height, width = (size - size % step for size in frame.shape)
    cells = frame[:height, :width].reshape(height // step, step, width // step, step)
    missing = np.isnan(cells).all((1, 3))
    most: np.ndarray = np.where(missing, np.nan, np.nan_to_num(cells).max((1, 3)))
    return most


def draw_curves(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw scores of ``RainScores.rows`` by lead time: CSI and bias at some thresholds, FSS, mean absolute error."""
    import_without_settings("matplotlib")
    from matplotlib.figure import Figure

    thresholds = sorted({row["threshold_mm_h"] for row in rows})
    chosen = [t for t in (0.1, 1.0, 5.0) if t in thresholds] or thresholds[:3]
    fss = [name for name in ("fss_4km", "fss_16km") if name in rows[0]]
    panels = [("csi", t, f"CSI, {t:g} mm/h") for t in chosen]
    panels += [("bias", t, f"frequency bias, {t:g} mm/h") for t in chosen]
    panels += [
        (name, chosen[len(chosen) // 2], f"FSS {name[4:-2]} km, {chosen[len(chosen) // 2]:g} mm/h") for name in fss
    ]
    panels.append(("mae", chosen[0], "mean absolute error, mm/h"))
    columns = 3
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4 * columns, 2.8 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis, (key, threshold, title) in zip(axes, panels, strict=False):
        for method in dict.fromkeys(row["method"] for row in rows):
            points = [
                (row["lead_minutes"], row[key])
                for row in rows
                if row["method"] == method and row["threshold_mm_h"] == threshold
            ]
            axis.plot(*zip(*points, strict=True), marker=".", label=method)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("lead time, minutes")
        axis.grid(alpha=0.3)
        if key == "bias":
            axis.axhline(1, color="0.4", linewidth=0.8)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    # On a panel it would lie on the lines of one method or another.
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    _save(figure, file)


def draw_performance(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw the performance diagram (Roebber 2009): POD against 1 - FAR, with lines of equal CSI and frequency bias."""
    import_without_settings("matplotlib")
    from matplotlib.figure import Figure

    thresholds = sorted({row["threshold_mm_h"] for row in rows})
    chosen = [t for t in (0.1, 1.0, 5.0) if t in thresholds] or thresholds[:3]
    figure = Figure(figsize=(4.4 * len(chosen), 4.6), layout="constrained")
    for axis, threshold in zip(figure.subplots(1, len(chosen), squeeze=False)[0], chosen, strict=True):
        ratio, detection = np.meshgrid(np.linspace(0.01, 1, 200), np.linspace(0.01, 1, 200))
        csi = axis.contour(
            ratio, detection, 1 / (1 / ratio + 1 / detection - 1), np.arange(0.1, 1, 0.1), colors="0.8", linewidths=0.8
        )
        axis.clabel(csi, fontsize=7)
        for bias in (0.3, 0.5, 0.7, 1, 1.4, 2, 3):
            axis.plot([0, 1], [0, bias], color="0.6", linewidth=0.6, linestyle="--")
            end = (1.0, bias) if bias <= 1 else (1 / bias, 1.0)
            axis.annotate(f"{bias:g}", end, fontsize=7, color="0.4")
        for number, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
            mine = [row for row in rows if row["method"] == method and row["threshold_mm_h"] == threshold]
            points = np.array([(1 - row["far"], row["pod"]) for row in mine])
            axis.plot(*points.T, marker=".", label=method)
            if number == 0 and np.isfinite(points[0]).all():
                axis.annotate(f"{mine[0]['lead_minutes']:g} min", points[0], fontsize=7)
        axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="success ratio, 1 - FAR", ylabel="probability of detection")
        axis.set_title(f"{threshold:g} mm/h: solid CSI, dashed bias", fontsize=10)
        axis.set_aspect("equal")
        # Where nobody forecasts: much is hit, and far more was said.
        axis.legend(fontsize=8, loc="upper left")
    _save(figure, file)


def _save(figure: Any, file: Path) -> None:
    with atomic_write(file) as beside:
        figure.savefig(beside, dpi=100, format="png")
