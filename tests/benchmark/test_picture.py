import dataclasses
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from plasm import benchmark


def test_labels_of_the_picture_lie_on_no_other_and_within_the_axes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures, save = [], Figure.savefig

    def keep(figure: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    rows = benchmark.read_csv(Path(__file__).parents[2] / "docs/results/benchmark.csv")
    benchmark.picture([*rows, dataclasses.replace(rows[0], model="plasm_mmnist_tiny")], tmp_path / "a.png")
    titles = [axis.get_title() for axis in figures[0].axes][::2]
    assert titles == ["published, 200 epochs", "published, 2,000 epochs", "measured here, clips as in the label"]
    renderer = figures[0].canvas.get_renderer()
    for axis in figures[0].axes:
        for text in axis.texts:
            text.update_positions(renderer)
        # Without the lines to the points.
        boxes = [Text.get_window_extent(text, renderer) for text in axis.texts]
        assert boxes
        room = axis.get_window_extent(renderer)
        assert all(room.x0 <= box.x0 and box.x1 <= room.x1 for box in boxes)
        assert all(room.y0 <= box.y0 and box.y1 <= room.y1 for box in boxes)
        for number, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:number])
