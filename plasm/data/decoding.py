"""What FFmpeg decodes, as arrays: opening files, frames in them, pixel formats, upright pictures."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .extras import require

__all__ = ["PAGED", "decode_image", "display_matrix", "has_pages", "open_video", "to_array", "upright"]

# Images that may hold several frames.
PAGED = {".gif", ".tif", ".tiff", ".webp"}
# Beside the larger entry of a row: rotations by other angles than multiples of 90 degrees have both.
_SKEW = 0.01


@contextmanager
def open_video(content: BinaryIO, name: str) -> Iterator[tuple[Any, Any]]:
    """The container and the video stream of a file, and one kind of error for all that can be wrong with it.

    Args:
        content: The open file, rather than a path, since FFmpeg gives a meaning to %, : and * in names.
        name: What errors call it.

    Raises:
        ValueError: If it is no video.
        ImportError: If PyAV is not installed.
    """
    av = require("av")
    if content.read(3) == b"GIF":
        _check_gif(content, name)
    content.seek(0)
    try:
        # Titles and the like may be in any encoding.
        with av.open(content, metadata_errors="replace") as container:
            if not container.streams.video:
                raise ValueError(f"{name} holds no video")
            if container.streams.video[0].codec_context is None:
                raise ValueError(f"{name} cannot be decoded: what it says of its video is cut off or of no known codec")
            yield container, container.streams.video[0]
    except av.FFmpegError as error:
        raise ValueError(f"{name} cannot be decoded: {error.strerror}") from error
    except OSError as error:
        # Of an empty file.
        raise ValueError(f"{name} cannot be decoded: {error}") from error


def _check_gif(content: BinaryIO, name: str) -> None:
    """Refuse a GIF that ends within a block, as FFmpeg does not: it takes what is missing for background."""

    def take(count: int) -> bytes:
        taken = content.read(count)
        if len(taken) < count:
            raise ValueError(f"{name} is cut off")
        return taken

    def take_colours(flags: int) -> None:
        take(3 << (flags & 7) + 1 if flags & 0x80 else 0)

    content.seek(0)
    take_colours(take(13)[10])
    while (kind := content.read(1)) in (b"!", b","):
        if kind == b"!":
            take(1)
        else:
            take_colours(take(9)[8])
            take(1)
        while length := take(1)[0]:
            take(length)


def decode_image(content: BinaryIO, name: str, gray: bool) -> np.ndarray:
    """Decode an image file's content as it is stored: (H, W, K), uint8 or uint16. Orientations in EXIF are left alone.

    Args:
        content: The open file.
        name: What errors call it.
        gray: One channel is enough, where the file holds it apart.

    Raises:
        ValueError: If it is none, or damaged.
        ImportError: If PyAV is not installed.
    """
    with open_video(content, name) as (container, stream):
        frame = next(iter(container.decode(stream)), None)
        if frame is None:
            raise ValueError(f"{name} holds no image")
        if frame.is_corrupt:
            raise ValueError(f"{name} is damaged")
        return to_array(frame, gray)


def has_pages(file: Path) -> bool:
    """Whether a TIFF, WebP or GIF holds more than one frame; False for what is none of them, or damaged."""
    with file.open("rb") as content:
        start = content.read(21)
        if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _next_page(content, start) != 0
        if start[:4] == b"RIFF" and start[8:16] == b"WEBPVP8X":
            return bool(start[20:] and start[20] & 2)
        if start[:3] != b"GIF":
            return False
        content.seek(0)
        try:
            with open_video(content, str(file)) as (container, stream):
                packets = (packet for packet in container.demux(stream) if packet.size)
                return next(packets, None) is not None and next(packets, None) is not None
        except ValueError:
            return False


def _next_page(content: BinaryIO, start: bytes) -> int:
    """Where the second page of a TIFF, or BigTIFF, begins; 0 if there is none."""
    order, big = "<" if start[:1] == b"I" else ">", b"+" in start[:4]
    offset, count, entry = ("Q", "Q", 20) if big else ("I", "H", 12)

    def number(kind: str, place: int) -> int:
        content.seek(place)
        read = content.read(struct.calcsize(kind))
        return int(struct.unpack(order + kind, read)[0]) if len(read) == struct.calcsize(kind) else 0

    first = number(offset, 8 if big else 4)
    return number(offset, first + struct.calcsize(count) + entry * number(count, first)) if first else 0


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


def display_matrix(frame: Any) -> tuple[float, float, float, float] | None:
    """The a, b, c, d of a frame's display matrix, which takes a pixel at (x, y) to (a x + c y, b x + d y)."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV does not know all kinds of such data, and lists none if there is one of them. An angle it tells.
        turn = np.deg2rad(frame.rotation)
        return float(np.cos(turn)), -float(np.sin(turn)), float(np.sin(turn)), float(np.cos(turn))
    if matrix is None:
        return None
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32, 5).astype(float).tolist()
    return a, b, c, d


def upright(pixels: np.ndarray, matrix: tuple[float, float, float, float] | None) -> np.ndarray:
    """Turn and mirror (H, W, K) as a display matrix says, where that is by multiples of 90 degrees."""
    if matrix is None:
        return pixels
    a, b, c, d = matrix
    if max(abs(b), abs(c)) <= _SKEW * min(abs(a), abs(d)):
        flip_x, flip_y = a < 0, d < 0
    elif max(abs(a), abs(d)) <= _SKEW * min(abs(b), abs(c)):
        pixels = pixels.swapaxes(0, 1)
        flip_x, flip_y = c < 0, b < 0
    else:
        return pixels
    return np.ascontiguousarray(pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1])
