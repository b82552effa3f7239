from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from video_files import encode_image, noise

from plasm.data.decoding import decode_image, to_array
from plasm.data.video import VideoStream


def make_frame(bits: int, sampling: str, width: int, height: int) -> tuple[av.VideoFrame, np.ndarray]:
    """A smooth frame in YUV, and what ITU-R BT.601 makes of it: (H, W, 3) in [0, 1]."""
    name = f"yuv{sampling}p" + (f"{bits}le" if bits > 8 else "")
    frame = av.VideoFrame(width, height, name)
    kind, scale = (np.uint8 if bits == 8 else np.uint16), 2.0 ** (bits - 8)
    every_x, every_y = {"420": (2, 2), "422": (2, 1), "444": (1, 1)}[sampling]
    y, x = np.mgrid[:height, :width]
    planes = [40 + x + y, 118 + x // every_x * every_x * 0.25, 122 + y // every_y * every_y * 0.25]
    stored = []
    for number, (plane, values) in enumerate(zip(frame.planes, planes, strict=True)):
        values = np.round(values * scale)
        part = values[:: every_y if number else 1, :: every_x if number else 1].astype(kind)
        content = np.zeros((plane.height, plane.line_size // part.itemsize), kind)
        content[:, : part.shape[1]] = part
        plane.update(content.tobytes())
        stored.append(values / scale)
    luma, blue, red = (stored[0] - 16) / 219, (stored[1] - 128) / 224, (stored[2] - 128) / 224
    colour = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], -1)
    return frame, np.clip(colour, 0, 1)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("sampling", ["420", "422", "444"])
@pytest.mark.parametrize("size", [(64, 48), (97, 65), (33, 24), (32, 25), (7, 5), (1, 1)])
def test_colours_at_any_size_and_depth(bits: int, sampling: str, size: tuple[int, int]) -> None:
    frame, expected = make_frame(bits, sampling, *size)
    pixels = to_array(frame, gray=False)
    assert pixels.dtype == (np.uint8 if bits == 8 else np.uint16)
    # FFmpeg interpolates between the samples of chroma, which differ by up to a level here.
    difference = 255 * np.abs(pixels / np.iinfo(pixels.dtype).max - expected)
    assert difference.max() < 4
    assert difference.mean() < 2
    gray = to_array(frame, gray=True)
    assert gray.shape == (size[1], size[0], 1)


def test_deep_colour_with_alpha_at_odd_widths() -> None:
    page = np.full((5, 7, 3), (200, 100, 50), np.uint8)
    frame = av.VideoFrame.from_ndarray(page, format="rgb24").reformat(format="yuva444p10le")
    pixels = to_array(frame, gray=False)
    assert pixels.shape == (5, 7, 4)
    assert np.abs(pixels[..., :3] / 257.0 - page).max() < 3


def test_an_image_that_is_cut_is_damaged() -> None:
    content = encode_image(noise(1)[0], "mjpeg")
    assert decode_image(BytesIO(content), "a.jpg", False).shape == (48, 64, 3)
    with pytest.raises(ValueError, match=r"a\.jpg (is damaged|cannot be decoded)"):
        decode_image(BytesIO(content[: len(content) // 2]), "a.jpg", False)
    png = encode_image(noise(1)[0])
    with pytest.raises(ValueError, match=r"a\.png (is damaged|cannot be decoded)"):
        decode_image(BytesIO(png[: len(png) // 2]), "a.png", False)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_with_exif_are_read_as_stored(orientation: int) -> None:
    image = Image.fromarray(noise(1)[0])
    exif, content = image.getexif(), BytesIO()
    exif[0x112] = orientation
    image.save(content, "png", exif=exif)
    np.testing.assert_array_equal(decode_image(BytesIO(content.getvalue()), "a.png", False), noise(1)[0])


def test_a_gif_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """FFmpeg would take what is missing for background."""
    images = [Image.fromarray(page) for page in noise(2, 16, 24)]
    for several in ([], images[1:]):
        content = BytesIO()
        images[0].save(content, "gif", save_all=True, append_images=several)
        whole = content.getvalue()
        file = tmp_path / "a.gif"
        file.write_bytes(whole)
        assert VideoStream(file).num_frames == 1 + len(several)
        file.write_bytes(whole[:-1])  # The last byte says that nothing follows.
        assert VideoStream(file).num_frames == 1 + len(several)
        for missing in range(2, 40, 7):
            file.write_bytes(whole[:-missing])
            with pytest.raises(ValueError, match=r"a\.gif is cut off"):
                VideoStream(file)
