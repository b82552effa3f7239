"""Error against cost and against speed, drawn. Needs matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plasm.files import atomic_write, import_without_settings

from .literature import measured_here, published
from .measuring import Measurement


def picture(rows: Sequence[Measurement], file: Path) -> None:
    """Draw error against MACs and against measured clips a second, of inference, a row for each length.

    Published errors are circles, at the MACs that their source reports, and stand in a row for each length of
    training: lengths are not to be compared. Errors measured here are stars, in a row of their own.

    Args:
        rows: Of which those of models with a published or measured error are drawn.
        file: PNG to write.
    """
    import_without_settings("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    # Of several runtimes, the first.
    measured = {row.model: row for row in reversed(rows) if row.mode == "inference"}
    panels: dict[str, list[tuple[str, float, float | None, bool]]] = {}
    for point in published():
        if point.model in measured:
            length = f"{point.epochs:,} epochs" if point.epochs else "a length not given"
            panels.setdefault(f"published, {length}", []).append((point.model, point.mse, point.macs, False))
    for model, weight in measured_here().items():
        if model in measured:
            panels.setdefault("measured here, clips as in the label", []).append(
                (f"{model} ({weight.clips:,})", weight.metrics["mse"], None, True)
            )
    panels = dict(sorted(panels.items(), key=lambda panel: ("measured" in panel[0], len(panel[0])))) or {
        "no model with a known error": []
    }
    # One below the other: as wide as a page, letters are as large as the page's.
    figure = Figure(figsize=(8, 10.4 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2 * len(panels), squeeze=False).reshape(len(panels), 2)
    for axes, (title, points) in zip(grid, panels.items(), strict=True):
        for axis, by_cost in zip(axes, (True, False), strict=True):
            axis.set(
                xlabel="MACs of a clip (G)" if by_cost else "clips a second of plasm's model, measured here",
                ylabel="MSE, Moving MNIST", title=title, xscale="log",
            )  # fmt: skip
            # Names stay within the axes, and numbers within a decade are few and plain.
            axis.margins(x=0.3, y=0.15)
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.grid(alpha=0.3)
            for label, mse, reported, own in points:
                row = measured[label.partition(" ")[0]]
                cost = reported if reported is not None else row.macs / 1e9
                color = "tab:red" if label.startswith("plasm") else "tab:blue"
                axis.scatter(cost if by_cost else row.clips_per_second, mse, color=color, s=90 if own else 18,
                             marker="*" if own else "o")  # fmt: skip
    figure.draw_without_rendering()
    for axes, points in zip(grid, panels.values(), strict=True):
        for axis in axes:
            _label(axis, [label.replace("_mmnist", "") for label, *_ in points])
    with atomic_write(file) as beside:
        figure.savefig(beside, dpi=150, format=file.suffix[1:] or "png")


def _label(axis: Any, labels: Sequence[str]) -> None:
    """Write a label beside each of the collections of an axis, within it, where it covers no other and no point."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    renderer = axis.figure.canvas.get_renderer()
    taken = [
        axis.transData.transform(collection.get_offsets())[0] + side for collection in axis.collections
        for side in ((-4, -4), (4, 4))
    ]  # fmt: skip
    boxes = [Bbox(corners) for corners in zip(taken[::2], taken[1::2], strict=True)]
    own, room = list(boxes), axis.get_window_extent(renderer)

    def write(label: str, position: Any, offset: tuple[int, int]) -> tuple[Any, Bbox]:
        text = axis.annotate(
            label, position, fontsize=9, xytext=offset, textcoords="offset points",
            ha="left" if offset[0] >= 0 else "right", va="center",
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "gray"} if max(map(abs, offset)) > 8 else None,
        )  # fmt: skip
        # An annotation's own extent has its line in it.
        text.update_positions(renderer)
        return text, Text.get_window_extent(text)

    for collection, label, point in zip(axis.collections, labels, own, strict=True):
        position, outside = collection.get_offsets()[0], None
        for offset in _OFFSETS:
            text, box = write(label, position, offset)
            if not box.count_overlaps([each for each in boxes if each is not point]):
                if room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1:
                    break
                outside = outside or offset
            text.remove()
        else:
            # No place is both free and within the axis.
            _, box = write(label, position, outside or _OFFSETS[-1])
        boxes.append(box)


# Where a label may stand from its point, in points, the nearest first.
_OFFSETS = [
    (side * x, sign * y)
    for x, y in sorted(
        ((x, y) for x in (6, 14, 26, 40, 60) for y in range(0, 90, 8)), key=lambda position: sum(position)
    )
    for sign in ((1, -1) if y else (1,))
    for side in (1, -1)
]
