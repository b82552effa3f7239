"""Metadata of image files, read without decoding: whether they are whole, size, number of frames, orientation.

FFmpeg fills up what is missing of a JPEG or a GIF, and does not tell of EXIF in all its versions.
"""

import re
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from typing import BinaryIO

import numpy as np

from plasm.files import require

# EXIF's orientations as display matrices: a pixel at (x, y) is shown at (a x + c y, b x + d y).
ORIENTATIONS = {
    2: (-1.0, 0.0, 0.0, 1.0),
    3: (-1.0, 0.0, 0.0, -1.0),
    4: (1.0, 0.0, 0.0, -1.0),
    5: (0.0, 1.0, 1.0, 0.0),
    6: (0.0, 1.0, -1.0, 0.0),
    7: (0.0, -1.0, -1.0, 0.0),
    8: (0.0, -1.0, 1.0, 0.0),
}
# Beside the larger entry of a row: rotations by other angles than multiples of 90 degrees have both.
_SKEW = 0.01
_EXIF = b"Exif\0\0"
_ORIENTATION = 0x112
# A graphic control extension that says nothing: no delay, no transparent colour.
_GIF_CONTROL = b"!\xf9\x04\0\0\0\0\0"
_PNG = b"\x89PNG\r\n\x1a\n"
# Ends the image data of a scan: a marker that is no restart, nor a byte 0xFF of the data.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# Markers of JPEG: the segments that begin with bits, height and width.
JPEG_SIZES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Bytes in which the size of plainer formats stands.
_HEADER = 128
_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_NO_LENGTH = {0x01, *range(0xD0, 0xD8)}


@dataclass(frozen=True)
class ImageFile:
    """Metadata of an image file.

    Attributes:
        size: (H, W), where the header says so; (0, 0) if it does not.
        several: It holds more than one frame.
        orientation: EXIF's, 1 if there is none.
        bare: Where the frames of a GIF begin that have no graphic control extension.
    """

    size: tuple[int, int] = (0, 0)
    several: bool = False
    orientation: int = 1
    bare: tuple[int, ...] = ()


def inspect_image(content: BinaryIO, name: str) -> ImageFile:
    """Look through a GIF, PNG, JPEG or WebP, and at the size of a BMP or JPEG 2000; other files are not looked at.

    It leaves the open file at an arbitrary position. ``name`` is what errors call it. A ValueError if it ends before
    its time, or has frames of 0 pixels.
    """
    content.seek(0)
    start = content.read(12)

    def take(count: int) -> bytes:
        taken = content.read(count)
        if len(taken) < count:
            raise ValueError(f"{name} is cut off")
        return taken

    content.seek(0)
    if start.startswith(b"GIF"):
        return _gif(take, content, name)
    if start.startswith(_PNG):
        return _png(take, content)
    if start.startswith(b"\xff\xd8\xff"):
        return _jpeg(content.read(), name)
    if start[:4] == b"RIFF" and start[8:] == b"WEBP":
        return _webp(take, content)
    return ImageFile(_plain_size(start + content.read(_HEADER)[len(start) :]))


def _plain_size(header: bytes) -> tuple[int, int]:
    """(H, W) that a BMP or a JPEG 2000 begins with, and (0, 0) of anything else."""
    if header.startswith(b"BM") and len(header) >= 26:
        width, height = struct.unpack_from("<2H" if header[14] == 12 else "<2i", header, 18)
        return abs(height), abs(width)
    if header.startswith(b"\xff\x4f\xff\x51") and len(header) >= 24:
        right, low, left, top = struct.unpack_from(">4I", header, 8)
        return max(0, low - top), max(0, right - left)
    found = header.find(b"ihdr") if header[4:8] == b"jP  " else -1
    if 0 < found <= len(header) - 12:
        height, width = struct.unpack_from(">2I", header, found + 4)
        return height, width
    return 0, 0


def _gif(take: Callable[[int], bytes], content: BinaryIO, name: str) -> ImageFile:
    def skip_colours(flags: int) -> None:
        take(3 << (flags & 7) + 1 if flags & 0x80 else 0)

    header = take(13)
    width, height = struct.unpack_from("<2H", header, 6)
    if not width or not height:
        raise ValueError(f"{name} holds no picture: it is {width}x{height} pixels large")
    skip_colours(header[10])
    frames, controlled, bare = 0, False, []
    while (kind := content.read(1)) in (b"!", b","):
        if kind == b"!":
            controlled |= take(1) == _GIF_CONTROL[1:2]
        else:
            frames += 1
            if not controlled:
                bare.append(content.tell() - 1)
            controlled = False
            skip_colours(take(9)[8])
            take(1)
        while length := take(1)[0]:
            take(length)
    return ImageFile((height, width), frames > 1, bare=tuple(bare))


def with_controls(content: BinaryIO, bare: Sequence[int]) -> BytesIO:
    """A GIF with a graphic control extension before each frame: where none has one, FFmpeg sees one frame."""
    content.seek(0)
    whole = content.read()
    ends = (*bare, len(whole))
    parts = [whole[: ends[0]], *(_GIF_CONTROL + whole[start:end] for start, end in pairwise(ends))]
    return BytesIO(b"".join(parts))


def _png(take: Callable[[int], bytes], content: BinaryIO) -> ImageFile:
    take(len(_PNG))
    size, several, orientation = (0, 0), False, 1
    while True:
        length, kind = struct.unpack(">I4s", take(8))
        if kind == b"IEND":
            return ImageFile(size, several, orientation)
        if kind == b"IHDR" and length >= 8:
            width, height = struct.unpack(">2I", take(8))
            size, length = (height, width), length - 8
        if kind == b"acTL" and length >= 4:
            several = struct.unpack(">I", take(4))[0] > 1
            length -= 4
        elif kind == b"eXIf":
            orientation, length = _orientation(take(length)), 0
        content.seek(length + 4, 1)


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of the segments of a JPEG, as far as it goes; the image data of a scan is passed over."""
    position = 2
    while 0 <= position <= len(data) - 2:
        marker = data[position + 1]
        if data[position] != 0xFF or marker == 0xFF:
            # Decoders skip what stands between segments.
            position = data.find(b"\xff", position + 1)
        elif marker in _NO_LENGTH:
            position += 2
        else:
            length = int.from_bytes(data[position + 2 : position + 4], "big")
            yield marker, data[position + 4 : position + 2 + length]
            position += 2 + length
            if marker == _SCAN:
                found = _MARKER.search(data, position)
                position = found.start() if found else -1


def _jpeg(data: bytes, name: str) -> ImageFile:
    size, orientation = (0, 0), 1
    for marker, segment in jpeg_segments(data):
        if marker == _END:
            return ImageFile(size, False, orientation)
        if marker == _APP1 and segment.startswith(_EXIF):
            orientation = _orientation(segment)
        elif marker in JPEG_SIZES and len(segment) >= 5:
            size = struct.unpack_from(">2H", segment, 1)
    raise ValueError(f"{name} is cut off")


def _webp(take: Callable[[int], bytes], content: BinaryIO) -> ImageFile:
    (size,) = struct.unpack("<4xI4x", take(12))
    end = size + 8
    size, several, orientation, position = (0, 0), False, 1, 12
    while position + 8 <= end:
        kind, length = struct.unpack("<4sI", take(8))
        if kind == b"VP8X":
            canvas = take(10)
            several = bool(canvas[0] & 2)
            width, height = (1 + int.from_bytes(canvas[i : i + 3], "little") for i in (4, 7))
            size = height, width
        elif kind == b"EXIF":
            orientation = _orientation(take(length))
        elif kind == b"VP8 " and not size[0] and length >= 10:
            # The sizes of a lossy and a lossless picture, of 14 bits each.
            width, height = struct.unpack("<6x2H", take(10))
            size = height & 0x3FFF, width & 0x3FFF
        elif kind == b"VP8L" and not size[0] and length >= 5:
            (bits,) = struct.unpack("<xI", take(5))
            size = 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
        position += 8 + length + length % 2
        content.seek(position)
    if content.seek(0, 2) < end:
        take(1)
    return ImageFile(size, several, orientation)


def _orientation(exif: bytes) -> int:
    tags = require("PIL.Image").Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tags.load(exif)
            value = tags.get(_ORIENTATION, 1)
    # A picture is no worse for notes that cannot be read; Pillow raises what it meets in them.
    except Exception:
        return 1
    return value if value in ORIENTATIONS else 1


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
