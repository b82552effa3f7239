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

from .decoding import decode_image

__all__ = ["ArrayStream", "FrameStream", "ImageStream", "array_layout", "array_shape", "check_finite", "dimensions"]


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
        if first.shape != last.shape:
            raise ValueError(f"{self.name} changes from {dimensions(first[0])} to {dimensions(last[0])} inside")


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


def dimensions(frame: np.ndarray) -> str:
    """Of (H, W, K), as WxH for errors."""
    return f"{frame.shape[1]}x{frame.shape[0]}"


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
            with file.open("rb") as handle:
                frames.append(decode_image(handle, str(file), gray))
            if frames[0].shape != frames[-1].shape:
                raise ValueError(f"{file} is {dimensions(frames[-1])}, others of {self.name} {dimensions(frames[0])}")
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
        if "c" not in self.layout:
            return frames[..., None]
        return frames.transpose(0, 2, 3, 1) if self.layout.endswith("tchw") else frames


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
    shape, dtype = array_shape(file)
    if dtype.kind not in "uf" or dtype.itemsize > 8 or (dtype.kind == "u" and dtype.itemsize > 2):
        raise ValueError(f"{file} should hold uint8, uint16, or floats in [0, 1]; it holds {dtype}")
    if 0 in shape:
        raise ValueError(f"{file} holds no frames: an array of {shape}")
    layouts = [layout for layout in ("thw", "tchw", "thwc", "btchw", "bthwc") if len(layout) == len(shape)]
    for accepted in ({channels}, {1, 2, 3, 4}):
        fitting = [name for name in layouts if "c" not in name or shape[name.index("c")] in accepted]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise ValueError(
                f"{file} holds an array of {shape}, whose axes could be {' or '.join(map(str.upper, fitting))}: "
                "write it anew without doubt, as (B, T, C, H, W) with frames wider than 4 pixels"
            )
    raise ValueError(
        f"{file} holds an array of {shape}; wanted (T, H, W), (T, C, H, W), (T, H, W, C), (B, T, C, H, W) or (B, T, H, "
        f"W, C) with C = {channels}"
    )
