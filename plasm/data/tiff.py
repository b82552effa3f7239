"""TIFF files of any kind that tifffile and imagecodecs decode: images, pages, and the stacks of microscopes.

What a stack's axes are is read from what OME, ImageJ and the like wrote. Time is never guessed from a depth or from
channels: what is ambiguous is refused until the user says it.
"""

import logging
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from plasm.files import require, shown

from .image_files import JPEG_SIZES, ORIENTATIONS, jpeg_segments, upright
from .layouts import check_finite, select_frames, stated_layout
from .limits import check_bytes
from .reading import naming

_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
TIFF = "a whole TIFF file"
# Values of TIFF's tags.
_WHITE_IS_ZERO, _PALETTE, _SEPARATED, _YCBCR = 0, 3, 5, 6
_PLAIN = (_WHITE_IS_ZERO, 1, 2, _PALETTE, _SEPARATED, _YCBCR)
_JPEG = (6, 7, 34892)
_UNSPECIFIED, _ASSOCIATED = 0, 1
# tifffile's letters for pages that follow one another.
_FRAMES = "TIQ"
# Bytes of a value while its frame is converted, besides those in the file.
_FLOATS = 8


@dataclass(frozen=True)
class TiffStack:
    """The frames of a file.

    Attributes:
        layout: Of all axes, those that count pages first; see ``layouts``.
        shape: Their lengths.
        outer: How many of them count pages.
        offsets: Where the pages begin in the file; of one page alone if all is stored behind it as one array.
        mapped: Where that array begins.
        dtype: Of its values.
        axes: tifffile's letters of the axes.
    """

    layout: str
    shape: tuple[int, ...]
    outer: int
    offsets: tuple[int, ...]
    mapped: int | None
    dtype: np.dtype
    axes: str

    def length(self, letter: str) -> int:
        """Of an axis; 1 if there is none of that letter."""
        return self.shape[self.layout.index(letter)] if letter in self.layout else 1

    def check(self, count: int, name: str) -> None:
        """Refuse so many frames if they would take more memory than the limit."""
        size = self.length("h"), self.length("w")
        needed = math.prod(size) * self.length("c") * (count * self.dtype.itemsize + _FLOATS)
        check_bytes(needed, name, f"{count:,} frame(s) of {size[1]}x{size[0]}")

    def frame(self, file: Any, number: int, clip: int, channels: int, fill: float | None, name: str) -> np.ndarray:
        """Read a frame of a clip from tifffile's object: (H, W, K), any numbers. For the rest see ``read_tiff``."""
        outer, inner = self.layout[: self.outer], self.layout[self.outer :]
        positions = np.arange(math.prod(self.shape[: self.outer])).reshape(self.shape[: self.outer])
        chosen: dict[str, Any] = {"b": clip, "t": number, "_": 0}
        wanted = np.ravel(positions[tuple(chosen.get(letter, slice(None)) for letter in outer)])
        parts = []
        for position in wanted.tolist():
            file.filehandle.seek(self.offsets[0 if self.mapped is not None else position])
            page = require("tifffile").TiffPage(file, (position,))
            values = _values(file, page, self, position, name)
            # An axis of frames within the page, or else one frame of it.
            rows = slice(number, number + 1)
            frame = select_frames(values, inner, clip, rows)[0]
            parts.append(_pixels(page, _filled(page, frame, fill, name), channels, name))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, 2)

    @classmethod
    def of(cls, file: Any, name: str, stated: str | None) -> "TiffStack":
        """Find out what is in tifffile's object of a file, whose axes the user may state.

        Raises:
            ValueError: If pages differ, or what the axes are is ambiguous.
        """
        pages, axes, shape, kind = _main_series(file, name)
        first = pages[0]
        if any(page is None for page in pages):
            raise ValueError(f"{name} lacks {sum(page is None for page in pages)} of {len(pages)} pages")
        kept = [position for position, letter in enumerate(axes) if letter in "YX" or shape[position] > 1]
        axes, shape = "".join(axes[position] for position in kept), tuple(shape[position] for position in kept)
        if stated is None:
            _check_header(file, kind, name, f"{axes} of {shape}")
            layout = _layout(axes, shape, name)
        else:
            layout = stated_layout(stated, shape, name)
        outer = next((k for k in range(len(shape)) if math.prod(shape[k:]) == first.size), None)
        if outer is None:
            raise ValueError(f"{name} is damaged: its header tells of {shape}, its first page has {first.shape}")
        mapped, count = None, math.prod(shape[:outer])
        dtype = first.dtype.newbyteorder(file.byteorder)
        if len(pages) == 1 < count:
            mapped = int(first.dataoffsets[0])
            if not first.is_contiguous or mapped + math.prod(shape) * dtype.itemsize > file.filehandle.size:
                raise ValueError(
                    f"{name} is damaged or cut off: its header tells of {shape}, and that is not all there"
                )
        elif len(pages) != count:
            raise ValueError(f"{name} is damaged: its header tells of {shape}, and it has {len(pages)} pages")
        offsets = tuple(int(page.offset) for page in pages)
        return cls(layout, shape, outer, offsets, mapped, dtype, axes)


def is_tiff(content: BinaryIO) -> bool:
    """Whether an open file is one, by its first bytes."""
    content.seek(0)
    start = content.read(4)
    content.seek(0)
    return start in _STARTS


def tiff_frames(content: BinaryIO, name: str) -> int:
    """How many frames a TIFF holds; thumbnails and channels are none. At least 2 where that is ambiguous."""
    with naming(name, TIFF), open_tiff(content, name) as file:
        try:
            stack = TiffStack.of(file, name, None)
        except _AmbiguousError:
            return 2
        return stack.length("t") * stack.length("b")


def read_tiff(content: BinaryIO, name: str, channels: int = 3, fill: float | None = None) -> np.ndarray:
    """Read a TIFF of one frame: (H, W, K), any numbers.

    Args:
        content: The open file.
        name: What errors call it.
        channels: C wanted, which tells what a fourth sample is.
        fill: What is taken for missing values.

    Raises:
        ValueError: If it is damaged, or holds several frames.
    """
    with naming(name, TIFF), open_tiff(content, name) as file:
        stack = TiffStack.of(file, name, None)
        if stack.length("t") > 1:
            raise ValueError(f"{name} holds several frames; where others of its folder hold one, it is no frame")
        stack.check(1, name)
        return check_finite(stack.frame(file, 0, 0, channels, fill, name)[None], name, 0, fill=fill)[0]


class _AmbiguousError(ValueError):
    """What an axis is, the file does not say."""


class _Errors(logging.Handler):
    """What tifffile only logs: that pages or values are missing."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.first = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR and not self.first:
            self.first = record.getMessage()


@contextmanager
def open_tiff(content: BinaryIO, name: str) -> Iterator[Any]:
    """Open what tifffile makes of a file: no other is opened, whatever a header names."""
    tifffile = require("tifffile")
    errors, logger = _Errors(), logging.getLogger("tifffile")
    logger.addHandler(errors)
    content.seek(0)
    try:
        flags = {"is_mmstack": False, "is_ndtiff": False}
        with tifffile.TiffFile(content, name=Path(name).name, _multifile=False, **flags) as file:
            if not len(file.pages):
                raise ValueError(f"{name} holds no pages")
            yield file
    finally:
        logger.removeHandler(errors)
    if errors.first:
        raise ValueError(f"{name} is damaged: {shown(errors.first)}")


def _main_series(file: Any, name: str) -> tuple[list[Any], str, tuple[int, ...], str]:
    """Pages, axes, shape and kind of what is in a file, thumbnails, smaller copies and masks left out."""
    series = list(file.series)
    if not series:
        raise ValueError(f"{name} holds no pages")
    whole = [each for each in series if not (each.keyframe.is_reduced or each.keyframe.is_mask)] or series
    # A series of pages of one shape may begin or end with a copy that is marked, too.
    first = whole[0]
    if len(whole) > 1:
        largest = max(whole, key=lambda each: each.keyframe.imagewidth * each.keyframe.imagelength)
        others = [each for each in whole if not _is_thumbnail(each, largest)]
        alike = {(each.get_shape(squeeze=False), str(each.dtype), each.get_axes(squeeze=False)) for each in others}
        if len(alike) > 1:
            sizes = ", ".join(f"{each.axes} of {each.shape} as {each.dtype}" for each in others[:3])
            raise ValueError(f"{name} holds pages that differ, and cannot be frames of one clip: {sizes}")
        whole, first = others, others[0]
    pages = [page for each in whole for page in each.pages]
    axes, shape = first.get_axes(squeeze=False), first.get_shape(squeeze=False)
    if len(whole) > 1:
        axes, shape = f"I{axes}", (len(whole), *shape)
    return pages, axes, tuple(int(size) for size in shape), first.kind


def _is_thumbnail(series: Any, largest: Any) -> bool:
    """Whether a page is a smaller copy of the others, though not marked as one."""
    small, large = series.keyframe, largest.keyframe
    if len(series.pages) > 1 or small.imagewidth >= large.imagewidth or small.imagelength >= large.imagelength:
        return False
    expected = small.imagewidth * large.imagelength / large.imagewidth
    return bool(abs(expected - small.imagelength) <= max(1, 0.02 * expected))


def _check_header(file: Any, kind: str, name: str, found: str) -> None:
    """Refuse to take pages for frames where a header says what they are, and tifffile could not follow it."""
    if file.is_ome and kind != "ome":
        reason = "its OME header is damaged or names other files, which are not opened"
    elif file.is_imagej and kind not in ("imagej", "ome", "shaped"):
        reason = "its ImageJ header does not fit what is there: it is damaged or cut off"
    elif file.is_micromanager and kind in ("generic", "uniform") and len(file.pages) > 1:
        reason = "its pages are numbered in an index of Micro-Manager, which is not read"
    else:
        return
    raise _AmbiguousError(f"{name} has the axes {found}, but {reason}. If they are frames, say so: axes=TYX")


def _layout(axes: str, shape: tuple[int, ...], name: str) -> str:
    frames = [letter for letter in axes if letter not in "YXSC"]
    colours = [letter for letter in axes if letter in "SC"]
    known = axes.count("Y") == axes.count("X") == 1 and len(colours) < 2
    if not known or len(frames) > 1 or any(letter not in _FRAMES for letter in frames):
        raise _AmbiguousError(
            f"{name} has the axes {shown(axes)} of {shape} (Z is depth, S samples, I or Q pages of which it says "
            f"nothing): {_cure(axes)}"
        )
    return "".join({"Y": "h", "X": "w", "S": "c", "C": "c"}.get(letter, "t") for letter in axes)


def _cure(axes: str) -> str:
    """What a user can say of axes that are ambiguous."""
    names = {letter: letter for letter in "YXTC"} | ({} if "C" in axes else {"S": "C"})
    taken = {names.get(letter) for letter in axes}
    free = iter([letter for letter in "TBC" if letter not in taken])
    stated = "".join(names.get(letter) or next(free, "?") for letter in axes)
    if "?" in stated:
        return "these are more axes than T frames, C channels, Y rows, X columns and B clips: save fewer in a file"
    return f"say which are T frames, C channels and B clips, such as axes={stated}"


def _values(file: Any, page: Any, stack: TiffStack, position: int, name: str) -> np.ndarray:
    """The values of a page as they are stored, checked to be all there."""
    shape = stack.shape[stack.outer :]
    if page.size != math.prod(shape) or page.dtype is None:
        raise ValueError(f"{name}, page {position + 1}, is of {page.shape}, not of {shape} as the first")
    if stack.mapped is not None:
        size = math.prod(shape)
        file.filehandle.seek(stack.mapped + position * size * stack.dtype.itemsize)
        stored = file.filehandle.read(size * stack.dtype.itemsize)
        return np.frombuffer(stored, stack.dtype).reshape(shape)
    end = file.filehandle.size
    for start, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if not count or not 0 < start <= end - count:
            raise ValueError(f"{name}, page {position + 1}, is damaged or cut off: a part of its pixels is not there")
        if page.compression in _JPEG:
            _check_jpeg(file, page, start, count, f"{name}, page {position + 1}")
    values: np.ndarray = page.asarray(maxworkers=1)
    return values.reshape(shape)


def _check_jpeg(file: Any, page: Any, start: int, count: int, name: str) -> None:
    """Refuse a JPEG that is larger than the part of the page that it fills: it is unpacked as its own header says."""
    file.filehandle.seek(start)
    for marker, segment in jpeg_segments(file.filehandle.read(min(count, 1 << 16))):
        if marker in JPEG_SIZES and len(segment) >= 5:
            height, width = struct.unpack_from(">2H", segment, 1)
            # Parts are filled up to whole blocks.
            tall = page.tilelength or page.rowsperstrip or page.imagelength
            wide = page.tilewidth or page.imagewidth
            if height > tall + 64 or width > wide + 64:
                raise ValueError(f"{name} is damaged: a part of {wide}x{tall} holds a JPEG of {width}x{height}")
            return


def _pixels(page: Any, values: np.ndarray, channels: int, name: str) -> np.ndarray:
    """What is stored as what is shown: (H, W, K) gray, colour or channels; in full range, black at 0, upright."""
    photometric, kind = int(page.photometric), values.dtype.kind
    if photometric not in _PLAIN:
        raise ValueError(f"{name} holds pixels of the kind {shown(page.photometric)}, which is not read")
    if kind == "b":
        values = values.astype(np.uint8) * np.uint8(255)
    bits = int(page.bitspersample)
    if photometric == _PALETTE and page.colormap is not None and values.dtype.kind == "u":
        colours = page.colormap if page.colormap.max() < 256 else page.colormap >> 8
        values = colours.T.astype(np.uint8)[values[..., 0]]
    elif values.dtype.kind == "u" and kind != "b" and bits < 8 * values.dtype.itemsize <= 16:
        # 12 bits in 16 are the camera's whole range.
        top = np.iinfo(values.dtype).max
        values = np.round(values * (top / ((1 << bits) - 1))).astype(values.dtype)
    if photometric == _WHITE_IS_ZERO:
        if values.dtype.kind == "i":
            raise ValueError(f"{name} holds signed values of which 0 is white: what is black it does not say")
        values = (1 if values.dtype.kind == "f" else np.iinfo(values.dtype).max) - values
    if photometric == _SEPARATED:
        values = _from_inks(values, name)
    if photometric == _YCBCR and page.compression not in _JPEG:
        values = _from_ycbcr(values, name)
    values = _without_extra(page, values, channels)
    return np.ascontiguousarray(upright(values, ORIENTATIONS.get(page.tags.valueof(274, 1))))


def _filled(page: Any, values: np.ndarray, fill: float | None, name: str) -> np.ndarray:
    """Without what GDAL's tag says is missing; a 0 in integers is black anyway."""
    if 42113 not in page.tags or values.dtype.kind not in "uif" or (values.dtype.kind != "f" and page.nodata == 0):
        return values
    missing = values == page.nodata
    if not missing.any():
        return values
    if fill is None:
        raise ValueError(f"{name} has missing values (nodata, {page.nodata}): fill=0 takes 0 for them")
    return np.where(missing, values.dtype.type(fill), values)


def _from_inks(values: np.ndarray, name: str) -> np.ndarray:
    if values.shape[2] < 4 or values.dtype.kind != "u":
        raise ValueError(
            f"{name} holds {values.shape[2]} inks of {values.dtype}, only CMYK of uint8 and uint16 is read"
        )
    top = np.iinfo(values.dtype).max
    paper = (top - values[..., :4]).astype(np.float64)
    colours: np.ndarray = np.round(paper[..., :3] * paper[..., 3:] / top).astype(values.dtype)
    return colours


def _from_ycbcr(values: np.ndarray, name: str) -> np.ndarray:
    """ITU-R BT.601 in full range, TIFF's default."""
    if values.dtype != np.uint8 or values.shape[2] != 3:
        raise ValueError(
            f"{name} holds YCbCr of {values.dtype} with {values.shape[2]} samples, only uint8 of 3 is read"
        )
    luma, blue, red = np.moveaxis(values.astype(np.float64), 2, 0)
    blue, red = blue - 128, red - 128
    colours = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], 2)
    return np.round(colours.clip(0, 255)).astype(np.uint8)


def _without_extra(page: Any, values: np.ndarray, channels: int) -> np.ndarray:
    """Alpha as the fourth channel of colour; samples of no known meaning only where as many channels are wanted."""
    extra = tuple(int(kind) for kind in page.extrasamples or ())
    colours = values.shape[2] - len(extra)
    if not extra or colours not in (1, 3) or values.shape[2] == channels:
        return values
    if extra[0] == _UNSPECIFIED:
        return values[..., :colours] if colours == 3 else values
    if extra[0] == _ASSOCIATED:
        # Blended onto black already.
        return values[..., :colours]
    shown = values[..., :1].repeat(3, 2) if colours == 1 else values[..., :3]
    return np.concatenate([shown, values[..., colours : colours + 1]], 2)
