from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from plasm import pictures
from plasm.data import open_source, read_clips
from plasm.pictures import _GAP, _LABEL_HEIGHT, _LABEL_WIDTH

SHOWN, PREDICTION, TARGET = (torch.rand(2, t, 1, 64, 64) for t in (4, 6, 6))


def tile(image: np.ndarray, row: int, column: int, labels: int) -> np.ndarray:
    y = row * (64 + _GAP) + labels * _LABEL_HEIGHT
    x = _LABEL_WIDTH + column * (64 + _GAP)
    return image[y : y + 64, x : x + 64, 0]


def test_a_strip_has_a_row_each_for_input_truth_prediction_and_difference() -> None:
    image = np.asarray(pictures.strip(SHOWN, PREDICTION, TARGET))
    for row, clip in enumerate((SHOWN, TARGET, PREDICTION, (PREDICTION - TARGET).abs())):
        for column in range(clip.shape[1]):
            expected = (clip[0, column, 0] * 255).round().byte().numpy()
            np.testing.assert_array_equal(tile(image, row, column, 1 + (row > 0)), expected)


def test_a_strip_without_truth_has_input_and_prediction() -> None:
    with_truth = pictures.strip(SHOWN, PREDICTION, TARGET)
    without = pictures.strip(SHOWN, PREDICTION)
    assert with_truth.height - without.height == 2 * 2 * (64 + _GAP)


@pytest.mark.parametrize(("channels", "size"), [(1, 16), (2, 32), (3, 128)])
def test_channels_and_sizes(channels: int, size: int) -> None:
    clip = torch.rand(1, 3, channels, size, size)
    image = np.asarray(pictures.strip(clip, clip))
    side = max(64, size)
    frame = image[_LABEL_HEIGHT : _LABEL_HEIGHT + side, _LABEL_WIDTH : _LABEL_WIDTH + side]
    scale = side // size
    expected = (clip[0, 0] * 255).round().byte().numpy()
    for channel in range(3):
        if channels == 2 and channel == 2:
            assert (frame[..., 2] == 0).all()
        else:
            np.testing.assert_array_equal(frame[::scale, ::scale, channel], expected[min(channel, channels - 1)])


def test_five_channels_are_an_error() -> None:
    with pytest.raises(ValueError, match="got 5"):
        pictures.strip(torch.rand(1, 2, 5, 8, 8), torch.rand(1, 2, 5, 8, 8))


def test_a_contact_sheet_has_a_row_a_clip() -> None:
    image = np.asarray(pictures.contact_sheet(SHOWN, ["one", "other"]))
    for row, clip in enumerate(SHOWN):
        for column, frame in enumerate(clip):
            np.testing.assert_array_equal(tile(image, row, column, 1), (frame[0] * 255).round().byte().numpy())
    assert (image[_LABEL_HEIGHT:, :_LABEL_WIDTH] < 255).any()
    large = pictures.contact_sheet(torch.rand(1, 2, 3, 128, 160), ["a"])
    assert large.size == (_LABEL_WIDTH + 2 * (80 + _GAP), _LABEL_HEIGHT + 64 + _GAP)
    small = pictures.contact_sheet(torch.rand(1, 2, 2, 32, 32), ["a"])
    assert small.size == (_LABEL_WIDTH + 2 * (64 + _GAP), _LABEL_HEIGHT + 64 + _GAP)


def test_an_animation_has_a_page_a_frame(tmp_path: Path) -> None:
    pictures.animation(SHOWN, PREDICTION, TARGET, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 10
        assert image.info["duration"] == 200
        assert image.info["loop"] == 0
    pictures.animation(SHOWN[:1], PREDICTION[:1], None, tmp_path / "b.gif")
    assert (tmp_path / "b.gif").stat().st_size > 0


def test_a_gif_has_the_colours_of_its_frames(tmp_path: Path) -> None:
    ramp = torch.linspace(0, 1, 64).expand(3, 1, 32, 64)
    colour = torch.stack([ramp[:, 0], ramp[:, 0].flip(2), 0.3 * ramp[:, 0]], 1)
    # Equal frames stay frames of their own.
    for name, clip in (("gray", ramp), ("colour", colour)):
        pictures.movie(clip, tmp_path / f"{name}.gif", 5)
        (stream,) = open_source(tmp_path / f"{name}.gif", 3)
        assert (stream.num_frames, stream.rate) == (3, 5)
        read = read_clips(tmp_path / f"{name}.gif", 3)
        torch.testing.assert_close(read[0], clip.expand(3, 3, 32, 64), atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["12:30/out.mp4", "a:b.avi", "http:%d.mkv", "file:out*.gif", "b.webm", "c.mov"])
def test_a_video_has_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "12:30").mkdir()
    pictures.movie(torch.zeros(2, 1, 16, 16), tmp_path / name)
    assert open_source(tmp_path / name, 3)[0].num_frames == 2
    (tmp_path / "12:30" / "taken.mp4").mkdir()
    with pytest.raises(OSError, match=r"taken\.mp4"):
        pictures.movie(torch.zeros(2, 1, 16, 16), tmp_path / "12:30" / "taken.mp4")
    with pytest.raises(ValueError, match=r"a\.v2 cannot be written as a video"):
        pictures.movie(torch.zeros(2, 1, 16, 16), tmp_path / "a.v2")
    assert not list(tmp_path.glob(".*"))


def test_curves_of_a_log_whose_rows_are_not_all_evaluated(tmp_path: Path) -> None:
    log = [{"clips": 10, "loss": 1.0, "lr": 0.1}, {"clips": 20, "loss": 0.5, "lr": 0.2, "val_mse": 9.0}]
    pictures.curves(log, tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as image:
        assert image.size == (900, 320)


@pytest.mark.parametrize("errors", [(42.0, 39.5), (430.0, 44.0)])
def test_curves_have_plain_numbers(
    errors: tuple[float, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a decade too, where matplotlib would write powers of ten, and a little above one, where but one label."""
    drawn: list[Any] = []
    save = Figure.savefig

    def savefig(figure: Figure, *args: Any, **named: Any) -> None:
        drawn.append(figure)
        save(figure, *args, **named)

    monkeypatch.setattr(Figure, "savefig", savefig)
    log = [{"clips": 8 * n, "loss": 1.0, "lr": 0.1, "val_mse": error} for n, error in enumerate(errors)]
    pictures.curves(log, tmp_path / "c.png")
    axis = drawn[0].axes[1].yaxis
    low, high = axis.get_view_interval()
    ticks = axis.get_major_ticks() + axis.get_minor_ticks()
    labels = [tick.label1.get_text() for tick in ticks if low <= tick.get_loc() <= high]
    assert len(labels) >= 3
    assert all(float(label) for label in labels)


def test_a_comparison_has_a_row_and_a_panel_for_each_model(tmp_path: Path) -> None:
    shown, target = torch.rand(2, 3, 1, 64, 64), torch.rand(2, 4, 1, 64, 64)
    predictions = {"one": torch.zeros(2, 4, 1, 64, 64), "another with a name of many letters": torch.ones_like(target)}
    image = np.asarray(pictures.comparison(shown, predictions, target))
    # Below the input and the truth: black, then white, in the columns of the frames.
    height = 2 * 16 + 4 * 66 + 6
    assert image.shape[0] == 2 * height
    black, white = (image[32 + 66 * row + 20, -10 * 8, 0] for row in (2, 3))
    assert (black, white) == (0, 255)
    file = tmp_path / "a.gif"
    panels = {name.replace(" with", "\nwith"): frames[:1] for name, frames in predictions.items()}
    pictures.comparison_animation(shown[:1], panels, target[:1], file)
    with Image.open(file) as animation:
        assert animation.n_frames == 7
        animation.seek(6)
        last = np.asarray(animation.convert("L"))
    panel = last.shape[1] // 3
    middles = [last[16 + 2 * 16 + 64, panel * number + panel // 2] for number in (1, 2)]
    assert middles == [0, 255]
