"""Streams of frames on disk: what all have in common, folders of images, arrays.

Nothing is decoded before it is asked for.

Shapes: T frames, H x W pixels, K channels as they are in the file.
"""

import struct
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np

from .decoding import PAGED, decode_image, has_pages

__all__ = [
    "ArrayStream",
    "FrameStream",
    "ImageStream",
    "array_layout",
    "array_shape",
    "check_alike",
    "check_finite",
    "layout_of",
    "to_channels_last",
]

_COLOURS = {1: "gray", 3: "colour", 4: "colour with alpha"}


class FrameStream(ABC):
    """Frames of one source, all of one size.

    Attributes:
        name: What errors call it.
        num_frames: T.
        size: (H, W).
        channels: K.
        rate: Frames a second, where it is known.
    """

    name: str
    num_frames: int
    size: tuple[int, int]
    channels: int
    rate: Fraction | None = None

    @abstractmethod
    def read(self, start: int, count: int, step: int = 1, gray: bool = False) -> np.ndarray:
        """Read frames ``start``, ``start + step``, ...

        Args:
            start: Index of the first.
            count: How many.
            step: Distance from one to the next.
            gray: One channel is enough, where the file holds it apart.

        Returns:
            (count, H, W, K), uint8, uint16 or floats.

        Raises:
            ValueError: If the file turns out to be damaged, or its frames to differ in size.
        """

    def _probe(self) -> None:
        """Read the first and the last frame: a damaged or cut file shows early."""
        first, last = self.read(0, 1), self.read(self.num_frames - 1, 1)
        self.size, self.channels = (first.shape[1], first.shape[2]), first.shape[3]
        check_alike(first[0], last[0], f"the last frame of {self.name}", "the first")


def check_finite(values: np.ndarray, name: str, first: int, step: int = 1) -> None:
    """Refuse NaN and infinities, which would turn every metric and weight into them.

    Args:
        values: (T, ...).
        name: Of the file.
        first: Row of the first of them in the file.
        step: Rows from one to the next.

    Raises:
        ValueError: If there is one; it names file and row.
    """
    if values.dtype.kind != "f":
        return
    rows = np.isfinite(values).reshape(len(values), -1).all(1)
    if not rows.all():
        row = first + int(rows.argmin()) * step
        raise ValueError(
            f"{name} should hold finite values (of images, in [0, 1]); its {values.dtype} are not finite in row {row:,}"
            ", counted from 0: NaN or infinite"
        )


def check_alike(first: np.ndarray, other: np.ndarray, name: str, others: str) -> None:
    """Refuse a frame that differs from the first in size, channels or depth.

    Args:
        first: (H, W, K).
        other: (H, W, K).
        name: Of the other.
        others: Name of the first, or of all that are as it is.

    Raises:
        ValueError: If they differ; it says in what.
    """
    if first.shape == other.shape and first.dtype == other.dtype:
        return
    one, two = (
        (f"{a.shape[1]}x{a.shape[0]}", _COLOURS.get(a.shape[2], f"of {a.shape[2]} channels"), f"of {a.dtype}")
        for a in (other, first)
    )
    found, expected = next((a, b) for a, b in zip(one, two, strict=True) if a != b)
    raise ValueError(f"{name} is {found}, {others} {expected}")


def to_channels_last(frames: np.ndarray, layout: str) -> np.ndarray:
    """Frames of one clip in any layout of ``ArrayStream``: (T, H, W, K)."""
    if "c" not in layout:
        return frames[..., None]
    return frames.transpose(0, 2, 3, 1) if layout.endswith("tchw") else frames


class ImageStream(FrameStream):
    """Images, each a frame.

    Args:
        files: The images, in order.
        name: What errors call them all.

    Raises:
        ValueError: If there is none, or the first or last cannot be decoded, or they differ in size.
        ImportError: If PyAV is not installed.
    """

    def __init__(self, files: Sequence[Path], name: str) -> None:
        self.files, self.name, self.num_frames = files, name, len(files)
        if not files:
            raise ValueError(f"{name} holds no frames")
        self._probe()

    def read(self, start: int, count: int, step: int = 1, gray: bool = False) -> np.ndarray:
        """Read frames; see ``FrameStream``."""
        frames: list[np.ndarray] = []
        for file in self.files[start : start + (count - 1) * step + 1 : step]:
            if file.suffix.lower() in PAGED and has_pages(file):
                raise ValueError(f"{file} holds several frames; where others of its folder hold one, it is no frame")
            with file.open("rb") as handle:
                frames.append(decode_image(handle, str(file), gray))
            check_alike(frames[0], frames[-1], str(file), f"others of {self.name}")
        return np.stack(frames)


class ArrayStream(FrameStream):
    """Frames of a .npy or .npz file, mapped where they are not compressed; a compressed .npz is unpacked at each use.

    Args:
        file: The array's file.
        layout: Order of the axes: "thw", "tchw", "thwc", and the same with "b" in front.
        clip: Which clip, if there is a "b".
        frames: First and number of the array's frames that are the stream's; all by default.
    """

    def __init__(self, file: Path, layout: str, clip: int = 0, frames: tuple[int, int] | None = None) -> None:
        self.file, self.layout, self.clip = file, layout, clip
        self.name = f"{file}, clip {clip}" if layout[0] == "b" else str(file)
        shape = dict(zip(layout, array_shape(file)[0], strict=True))
        self.size, self.channels = (shape["h"], shape["w"]), shape.get("c", 1)
        self.first, self.num_frames = frames or (0, shape["t"])
        if not self.num_frames:
            raise ValueError(f"{self.name} holds no frames")
        if self.first + self.num_frames > shape["t"]:
            raise ValueError(f"{self.name} has {shape['t']} frames, not {self.first + self.num_frames}")

    def read(self, start: int, count: int, step: int = 1, gray: bool = False) -> np.ndarray:
        """Read frames; see ``FrameStream``."""
        array = load_array(self.file)
        if self.layout[0] == "b":
            array = array[self.clip]
        first = self.first + start
        frames = np.asarray(array[first : first + (count - 1) * step + 1 : step])
        check_finite(frames, self.name, first, step)
        return to_channels_last(frames, self.layout)


def load_array(file: Path, member: str | None = None) -> np.ndarray:
    """The array of a .npy, or one (the first) of an .npz: mapped, or unpacked if it is compressed."""
    if file.suffix == ".npy":
        # Pickled objects, which these files can hold, are refused.
        return np.load(file, mmap_mode="r", allow_pickle=False)
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo(f"{member}.npy") if member else archive.infolist()[0]
        if info.compress_type != zipfile.ZIP_STORED:
            with archive.open(info) as content:
                return np.lib.format.read_array(content, allow_pickle=False)
    with file.open("rb") as handle:
        # The content follows a local header of 30 bytes, the name, and extra bytes of which only it knows the number.
        handle.seek(info.header_offset + 26)
        name_length, extra_length = struct.unpack("<2H", handle.read(4))
        handle.seek(name_length + extra_length, 1)
        shape, fortran, dtype = _array_header(handle, file)
        return np.memmap(file, dtype, "r", handle.tell(), shape, "F" if fortran else "C")


def _array_header(content: IO[bytes], file: Path) -> tuple[tuple[int, ...], bool, np.dtype]:
    # numpy has one function for each version of its header, and no public one that chooses.
    version = np.lib.format.read_magic(content)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{file} holds an array of the unknown format {version}")
    shape, fortran, dtype = readers[version](content)
    if dtype.hasobject:
        raise ValueError(f"{file} holds Python objects (a pickle), which are not read")
    return shape, fortran, dtype


def array_shape(file: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array in a .npy, or of the only one in an .npz, without unpacking it.

    Raises:
        ValueError: If it is no such file.
    """
    if file.suffix == ".npy":
        try:
            content = np.load(file, mmap_mode="r", allow_pickle=False)
        except (EOFError, ValueError) as error:
            raise ValueError(f"{file} is not a whole .npy file of numbers: {error}") from error
        return content.shape, content.dtype
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if len(names) != 1:
                raise ValueError(f"{file} holds {len(names)} arrays, wanted one")
            with archive.open(names[0]) as member:
                shape, _, dtype = _array_header(member, file)
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{file} is not a whole .npz file: {error}") from error
    return shape, dtype


def array_layout(file: Path, channels: int) -> str:
    """Order of the axes of an array file; see ``ArrayStream``.

    Args:
        file: The array's file.
        channels: C: an axis of that size is the channels, or else one of 1 to 4.

    Raises:
        ValueError: If the shape is none of these.
    """
    return layout_of(*array_shape(file), channels, str(file))


def layout_of(shape: tuple[int, ...], dtype: np.dtype, channels: int, name: str) -> str:
    """Order of the axes of an array of this shape and type; see ``array_layout``."""
    if dtype.kind not in "uf" or dtype.itemsize > 8 or (dtype.kind == "u" and dtype.itemsize > 2):
        raise ValueError(f"{name} should hold uint8, uint16, or floats in [0, 1]; it holds {dtype}")
    if 0 in shape:
        raise ValueError(f"{name} holds no frames: an array of {shape}")
    layouts = [layout for layout in ("thw", "tchw", "thwc", "btchw", "bthwc") if len(layout) == len(shape)]
    for accepted in ({channels}, {1, 2, 3, 4}):
        fitting = [each for each in layouts if "c" not in each or shape[each.index("c")] in accepted]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise ValueError(
                f"{name} holds an array of {shape}, whose axes could be {' or '.join(map(str.upper, fitting))}: "
                "write it anew without doubt, as (B, T, C, H, W) with frames wider than 4 pixels"
            )
    raise ValueError(
        f"{name} holds an array of {shape}; wanted (T, H, W), (T, C, H, W), (T, H, W, C), (B, T, C, H, W) or (B, T, H, "
        f"W, C) with C = {channels}"
    )
