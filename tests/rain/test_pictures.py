from pathlib import Path

import numpy as np
import pytest

from plasm.rain import pictures


@pytest.mark.parametrize(
    ("rows", "columns"), [((5, 20), (3, 33)), ((0, 40), (0, 50)), ((7, 8), (9, 10)), ((0, 0), (0, 0))]
)
def test_a_map_is_of_what_a_radar_covers(
    rows: tuple[int, int], columns: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = []
    monkeypatch.setattr(pictures, "_save", lambda figure, file: figures.append(figure))
    now = np.full((40, 50), np.nan, np.float32)
    now[slice(*rows), slice(*columns)] = 3
    pictures.draw_forecast({"forecast": np.stack([now] * 12)}, range(5, 65, 5), now, tmp_path / "a.png")
    images = [axis.images[-1].get_array() for axis in figures[0].axes[:5]]
    height, width = rows[1] - rows[0] or 40, columns[1] - columns[0] or 50
    assert [image.shape for image in images] == [(height, width)] * 5
    assert np.ma.count(images[0]) == (rows[1] - rows[0]) * (columns[1] - columns[0])
