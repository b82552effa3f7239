"""Decoding by FFmpeg, to arrays: opening files, frames in them, pixel formats, upright pictures."""

import csv
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np

from plasm.files import require

from .image_files import ORIENTATIONS, inspect_image, upright, with_controls
from .limits import check_bytes, read_limit
from .tiff import is_tiff, read_tiff, tiff_frames

# FFmpeg's names of the formats that are read, each with the endings of its files. No other format is opened: playlists
# and scripts name other files and servers, and text becomes pictures.
with Path(__file__).with_name("formats.csv").open(encoding="utf-8", newline="") as _file:
    _FORMATS = list(csv.DictReader(_file))
VIDEO_FORMATS, IMAGE_FORMATS = (
    {row["format"]: tuple(row["endings"].split()) for row in _FORMATS if row["kind"] == kind}
    for kind in ("video", "image")
)

# How the files of still images begin, and FFmpeg's decoders of them.
_STILLS = [
    (b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "mjpeg"), (b"BM", "bmp"),
    (b"\0\0\0\x0cjP  ", "jpeg2000"), (b"\xff\x4f\xff\x51", "jpeg2000"), (b"P4", "pbm"), (b"P5", "pgm"), (b"P6", "ppm"),
    (b"P7", "pam"),
]  # fmt: skip
# Images that may hold several frames.
PAGED = {".gif", ".png", ".tif", ".tiff", ".webp"}
# Bytes of a pixel while its frame is read, at most: decoded, converted to RGBA, and that as floats.
_PIXEL_BYTES = 24
# Profiles of colour in them crash PyAV, which frees their names twice.
_NO_SIDE_DATA = {"png", "apng"}


@contextmanager
def open_video(content: BinaryIO, name: str) -> Iterator[tuple[Any, Any]]:
    """The container and the video stream of an open file, and one kind of error for all that can be wrong with it.

    Nothing but the open file is read, whatever it says: FFmpeg gets no name, no protocol, and ``VIDEO_FORMATS`` and
    ``IMAGE_FORMATS`` alone. ``name`` is what errors call it.

    Raises:
        FileTooLargeError: If a frame would take more memory than the limit.
        ValueError: If it is no video.
        ImportError: If PyAV is not installed.
    """
    av = require("av")
    content.seek(0)
    if content.read(3) == b"GIF":
        image = inspect_image(content, name)
        check_frame(*image.size, name)
        if image.several and image.bare:
            content = with_controls(content, image.bare)
    content.seek(0)
    # Not for the streams, too: PyAV 15 crashes if there are some that a header does not list.
    options = {"protocol_whitelist": "", "format_whitelist": ",".join([*VIDEO_FORMATS, *IMAGE_FORMATS])}
    # No name either: FFmpeg gives a meaning to %, : and * in names, and to endings.
    source = SimpleNamespace(read=content.read, seek=content.seek, tell=content.tell)
    # Titles and the like may be in any encoding.
    with (
        _clearly(name),
        av.open(source, container_options=options, metadata_errors="replace") as container,
    ):
        stream = _film(container, name)
        codec = stream.codec_context
        if codec is None:
            raise ValueError(f"{name} cannot be decoded: what it says of its video is cut off or of no known codec")
        if not codec.width or not codec.height:
            raise ValueError(f"{name} holds frames of no size")
        check_frame(codec.height, codec.width, name)
        codec.options = {**codec.options, "max_pixels": _most_pixels()}
        yield container, stream


def _most_pixels() -> str:
    return str(int(min(read_limit() / _PIXEL_BYTES, 2**31 - 1)))


@contextmanager
def _clearly(name: str) -> Iterator[None]:
    """Whatever PyAV raises, as a ValueError that names the file."""
    av = require("av")
    try:
        yield
    except av.FFmpegError as error:
        if error.errno == errno.EINVAL:
            raise ValueError(
                f"{name} cannot be decoded: it is a playlist, a text, or of another format that plasm does not read, "
                f"or its frames have no size or more than {int(_most_pixels()):,} pixels"
            ) from error
        raise ValueError(f"{name} cannot be decoded: {error.strerror}") from error
    except (
        OSError,
        EOFError,
        RuntimeError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        ArithmeticError,
    ) as error:
        if isinstance(error, ValueError) and name in str(error):
            raise
        # Of an empty file, and whatever else PyAV meets in a damaged one.
        raise ValueError(f"{name} cannot be decoded: {error}") from error
    except MemoryError as error:
        raise ValueError(f"{name} cannot be decoded: its frames need more memory than there is") from error


def _film(container: Any, name: str) -> Any:
    """The first stream of pictures that is no cover."""
    kinds, streams = require("av.stream").Disposition, container.streams.video
    for stream in streams:
        if not stream.disposition & (kinds.attached_pic | kinds.timed_thumbnails):
            return stream
    raise ValueError(f"{name} holds no video" + (", only a cover picture" if streams else ""))


def check_frame(height: int, width: int, name: str) -> None:
    """Refuse frames that would take more memory than the limit: a FileTooLargeError."""
    check_bytes(height * width * _PIXEL_BYTES, name, f"a frame of {width}x{height}")


def decode_image(content: BinaryIO, name: str, gray: bool, channels: int = 3, fill: float | None = None) -> np.ndarray:
    """Decode an image file's content: (H, W, K), upright as its EXIF says; uint8 or uint16, of TIFF any numbers.

    Args:
        content: The open file.
        name: What errors call it.
        gray: One channel is enough, where the file holds it apart.
        channels: C wanted, which tells what a fourth sample of a TIFF is.
        fill: What is taken for missing values of a TIFF.

    Raises:
        ValueError: If it is none, damaged, cut off, or holds several frames; and as ``open_video``.
    """
    if is_tiff(content):
        return read_tiff(content, name, channels, fill)
    file = inspect_image(content, name)
    if file.several:
        raise ValueError(f"{name} holds several frames; where others of its folder hold one, it is no frame")
    check_frame(*file.size, name)
    content.seek(0)
    start = content.read(12)
    codec = next((codec for begins, codec in _STILLS if start.startswith(begins)), None)
    if start[:4] == b"RIFF" and start[8:] == b"WEBP":
        codec = "webp"
    with _first_frame(content, name) if codec is None else _still(content, name, codec) as frame:
        if frame is None:
            raise ValueError(f"{name} holds no image")
        if frame.is_corrupt:
            raise ValueError(f"{name} is damaged")
        return upright(to_array(frame, gray), ORIENTATIONS.get(file.orientation))


@contextmanager
def _first_frame(content: BinaryIO, name: str) -> Iterator[Any]:
    with open_video(content, name) as (container, stream):
        yield next(iter(container.decode(stream)), None)


@contextmanager
def _still(content: BinaryIO, name: str, codec: str) -> Iterator[Any]:
    """The picture of a file that is one, by its decoder alone: opened as a film it would be decoded twice."""
    check_bytes(content.seek(0, 2), name, "the file")
    content.seek(0)
    av = require("av")
    with _clearly(name):
        decoder = av.CodecContext.create(codec, "r")
        decoder.options = {"max_pixels": _most_pixels()}
        frames = decoder.decode(av.Packet(content.read())) or decoder.decode(None)
        yield frames[0] if frames else None


def has_pages(file: Path) -> bool:
    """Whether a TIFF, WebP, PNG or GIF holds more than one frame; False for what is none of them, or damaged."""
    with file.open("rb") as content:
        try:
            if is_tiff(content):
                return tiff_frames(content, str(file)) > 1
            return inspect_image(content, str(file)).several
        except ValueError:
            return False


def to_array(frame: Any, gray: bool) -> np.ndarray:
    """A decoded frame as it is stored, (H, W, K) with K of 1, 3 or 4; uint16 if the file has more than 8 bits."""
    parts = frame.format.components
    deep = max(part.bits for part in parts) > 8
    colour = frame.format.is_rgb or frame.format.has_palette
    if frame.format.has_palette or any(part.is_alpha for part in parts):
        pixels = ("rgba64le" if colour else "gbrap16le") if deep else "rgba"
    elif len(parts) == 1 or (gray and not colour):
        pixels = "gray16le" if deep else "gray"
    elif deep:
        # FFmpeg's way from YUV to the packed rgb48le gives wrong colours at odd widths.
        pixels = "rgb48le" if colour else "gbrp16le"
    else:
        pixels = "rgb24"
    try:
        # Without threads of its own, for which a forked worker that inherits the frame would wait forever.
        array: np.ndarray = frame.to_ndarray(format=pixels, threads=1)
    except TypeError:
        # An older PyAV.
        array = frame.to_ndarray(format=pixels)
    return array.reshape(*array.shape[:2], -1)


def display_matrix(frame: Any, codec: str) -> tuple[float, float, float, float] | None:
    """The a, b, c, d of a PyAV frame's display matrix, which takes a pixel at (x, y) to (a x + c y, b x + d y)."""
    try:
        matrix = None if codec in _NO_SIDE_DATA else frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV does not know all kinds of such data, and lists none if there is one of them.
        matrix = None
    if matrix is None and frame.rotation:
        # The angle it always tells.
        turn = np.deg2rad(frame.rotation)
        return float(np.cos(turn)), -float(np.sin(turn)), float(np.sin(turn)), float(np.cos(turn))
    if matrix is None:
        return None
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32, 5).astype(float).tolist()
    return a, b, c, d
