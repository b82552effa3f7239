from typing import Any

import numpy as np
import pytest
import torch

from plasm.data import FrameFormat
from plasm.data.frames import nearly_black

RANDOM = np.random.default_rng(0)


def test_depths_become_floats() -> None:
    pixels = np.array([0, 1, 200, 255], np.uint8).reshape(1, 2, 2, 1)
    expected = torch.tensor([0, 1, 200, 255]).view(1, 1, 2, 2) / 255
    for frames in (pixels, pixels.astype(np.uint16) * 257, (pixels / 255).astype(np.float64)):
        clip = FrameFormat(1)(frames, "a")
        assert clip.dtype == torch.float32
        torch.testing.assert_close(clip, expected)


def test_channels() -> None:
    colour = RANDOM.random((2, 4, 5, 3)).astype(np.float32)
    gray = FrameFormat(1)(colour, "a")
    torch.testing.assert_close(gray[:, 0], torch.from_numpy(colour @ np.float32([0.299, 0.587, 0.114])))
    assert torch.equal(FrameFormat(3)(colour[..., :1], "a")[:, 2], torch.from_numpy(colour[..., 0]))
    two = colour[..., :2]
    assert torch.equal(FrameFormat(2)(two, "a"), torch.from_numpy(two).movedim(3, 1))
    with pytest.raises(ValueError, match=r"a has 2 channel\(s\), from which 3"):
        FrameFormat(3)(two, "a")


def test_alpha_is_blended_onto_black() -> None:
    frames = RANDOM.integers(0, 256, (1, 3, 3, 4), dtype=np.uint8)
    expected = frames[..., :3] / 255 * (frames[..., 3:] / 255)
    np.testing.assert_allclose(FrameFormat(3)(frames, "a").movedim(1, 3).numpy(), expected, atol=1e-6)
    assert torch.equal(FrameFormat(4)(frames, "a"), torch.from_numpy(frames).movedim(3, 1) / 255)


def test_crop_takes_the_middle_and_stretch_all() -> None:
    frames = np.zeros((1, 12, 40, 1), np.uint8)
    frames[:, :, 14:26] = 255
    assert FrameFormat(1, (6, 6))(frames, "a").min() == 1
    stretched = FrameFormat(1, (6, 6), "stretch")(frames, "a")
    assert stretched[0, 0, 0, 0] == 0
    assert stretched.mean() == pytest.approx(12 / 40, abs=0.02)
    # KITTI: 1242x375 and Caltech: 640x480, to 128x160.
    for height, width in ((375, 1242), (480, 640), (3, 1)):
        assert FrameFormat(3, (128, 160))(np.zeros((1, height, width, 3), np.uint8), "a").shape == (1, 3, 128, 160)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((0, np.nan), "some that are not finite"), ((np.inf, 1), "some that are not finite"),
        ((-0.1, 1), r"values from -0\.1 to 1; give value_range"), ((0, 1.5), r"values from 0 to 1\.5; give"),
        ((0, 254), "values from 0 to 254; divide them by 255"), ((0, 1000), "values from 0 to 1000; give value_range"),
    ],
)  # fmt: skip
def test_floats_outside_the_range_are_refused(values: tuple[float, float], found: str) -> None:
    frames = np.array(values, np.float32).reshape(1, 1, 2, 1)
    with pytest.raises(ValueError, match=rf"b\.npy should hold floats in \[0, 1\]; its float32 hold {found}"):
        FrameFormat(1)(frames, "b.npy")


def test_rounding_may_leave_the_range() -> None:
    clip = FrameFormat(1)(np.array([-1e-7, 1.0000001], np.float64).reshape(1, 1, 2, 1), "b.npy")
    assert clip.flatten().tolist() == [0, 1]
    half = np.full((1, 1, 1, 1), 1 + np.finfo(np.float16).eps, np.float16)
    assert FrameFormat(1)(half, "b.npy").item() == 1


def test_a_format_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        FrameFormat(0)
    with pytest.raises(ValueError, match="at least 1"):
        FrameFormat(1, (0, 4))
    with pytest.raises(ValueError, match="crop or stretch"):
        FrameFormat(1, (4, 4), "pad")  # type: ignore[arg-type]


def test_a_range_of_ones_own() -> None:
    camera = (np.arange(4096, dtype=np.uint16)).reshape(1, 64, 64, 1)
    for kind in (np.uint16, ">u2", np.int16, np.int32, np.uint32, np.int64, np.float32, ">f8"):
        unit = FrameFormat(1, value_range=(0, 4095))(camera.astype(kind), "a")
        np.testing.assert_allclose(unit[0, 0].numpy(), camera[0, ..., 0] / 4095, atol=1e-6)
    ct = np.array([-1024, 3071], np.int16).reshape(1, 1, 2, 1)
    assert FrameFormat(1, value_range=(-1024, 3071))(ct, "a").flatten().tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"a holds values from -1024 to 3071, outside value_range=\(-1000, 1000\)"):
        FrameFormat(1, value_range=(-1000, 1000))(ct, "a")
    for kind in (np.int16, np.uint32, np.int64):
        with pytest.raises(ValueError, match=rf"a should hold .*{np.dtype(kind)}.*value_range=\(low, high\)"):
            FrameFormat(1)(ct.astype(kind), "a")
    with pytest.raises(ValueError, match=r"value_range is \(low, high\)"):
        FrameFormat(1, value_range=(1, 1))
    assert FrameFormat(1)(np.ones((1, 2, 2, 1), bool), "a").min() == 1


def test_what_comes_out_nearly_black_is_told() -> None:
    for kind, largest, dark in (
        (np.uint8, 1, True), (np.uint16, 1, True), (np.uint16, 1000, True), (np.uint16, 4095, True),
        (np.uint8, 0, False), (np.uint8, 20, False), (np.uint16, 4096, False), (np.float32, 1, False), (bool, 1, False),
    ):  # fmt: skip
        hint = nearly_black(FrameFormat(1)(np.full((1, 2, 2, 1), largest, kind), "a"))
        assert ("value_range=(0, 4095)" in (hint or "")) == dark


@pytest.mark.parametrize("value_range", [5, (0,), (255, 0), ("0", "255"), "0,255"])
def test_a_range_of_values_is_two_numbers(value_range: Any) -> None:
    with pytest.raises(ValueError, match=r"value_range is \(low, high\)"):
        FrameFormat(1, value_range=value_range)
