"""Streams of frames on disk: videos, GIFs, folders of images, arrays. Nothing is decoded before it is asked for.

Shapes: T frames, H x W pixels, K channels as they are in the file.
"""

import struct
import zipfile
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from .extras import require

__all__ = [
    "ArrayStream",
    "FrameStream",
    "ImageStream",
    "VideoStream",
    "array_layout",
    "array_shape",
    "check_finite",
    "decode_image",
]

# Their frames build on the ones before, whatever the container says of keyframes.
_NEVER_SEEK = {"gif", "apng"}


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
            raise ValueError(f"{self.name} changes from {_dimensions(first[0])} to {_dimensions(last[0])} inside")


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


def _dimensions(frame: np.ndarray) -> str:
    return f"{frame.shape[1]}x{frame.shape[0]}"


@contextmanager
def _video(content: BinaryIO, name: str) -> Iterator[tuple[Any, Any]]:
    """The container and the video stream of a file, and one kind of error for all that can be wrong with it.

    An open file rather than a path, since FFmpeg gives a meaning to %, : and * in names.
    """
    av = require("av")
    try:
        with av.open(content) as container:
            if not container.streams.video:
                raise ValueError(f"{name} holds no video")
            if container.streams.video[0].codec_context is None:
                raise ValueError(
                    f"{name} cannot be decoded: what it says of its video is cut off, or of no known codec"
                )
            yield container, container.streams.video[0]
    except av.FFmpegError as error:
        raise ValueError(f"{name} cannot be decoded: {error.strerror}") from error
    except OSError as error:
        # Of an empty file.
        raise ValueError(f"{name} cannot be decoded: {error}") from error


def decode_image(content: BinaryIO, name: str, gray: bool) -> np.ndarray:
    """Decode an image file's content: (H, W, K), uint8 or uint16.

    Raises:
        ValueError: If it is none.
        ImportError: If PyAV is not installed.
    """
    with _video(content, name) as (container, stream):
        frame = next(iter(container.decode(stream)), None)
        if frame is None:
            raise ValueError(f"{name} holds no image")
        return _to_array(frame, gray)


def _to_array(frame: Any, gray: bool) -> np.ndarray:
    """A decoded frame, (H, W, K) with K of 1, 3 or 4; uint16 if the file has more than 8 bits."""
    parts = frame.format.components
    depth = 16 if max(part.bits for part in parts) > 8 else 8
    colour = frame.format.is_rgb or frame.format.has_palette
    if frame.format.has_palette or any(part.is_alpha for part in parts):
        pixels = "rgba" if depth == 8 else "rgba64le"
    elif len(parts) == 1 or (gray and not colour):
        pixels = "gray" if depth == 8 else "gray16le"
    else:
        pixels = "rgb24" if depth == 8 else "rgb48le"
    array: np.ndarray = frame.to_ndarray(format=pixels)
    return array.reshape(*array.shape[:2], -1)


class VideoStream(FrameStream):
    """A video, or anything else that PyAV decodes.

    The file is indexed once without decoding, and read from the last keyframe before what is asked for.

    Args:
        file: The video.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it holds no frames, or its first or last cannot be decoded, or they differ in size.
        ImportError: If PyAV is not installed.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.name = file, str(file)
        with file.open("rb") as handle, _video(handle, self.name) as (container, stream):
            self.rate = stream.average_rate
            packets = [(packet.pts, packet.is_keyframe) for packet in container.demux(stream) if packet.size]
            seekable = stream.codec_context.name not in _NEVER_SEEK
        times = sorted(time for time, _ in packets if time is not None)
        # Without distinct times for all frames there is no telling which frame a seek leads to.
        if not seekable or len(times) != len(packets) or len(set(times)) != len(times):
            times = []
        self._times = np.array(times, dtype=np.int64)
        self._keyframes = np.array(sorted(time for time, key in packets if key and time is not None), dtype=np.int64)
        self.num_frames = len(packets)
        if not packets:
            raise ValueError(f"{file} holds no frames")
        try:
            self._probe()
        except _EndedEarlyError:
            # Some containers have packets that give no frame. Counting what decodes is slow, and right.
            self._times = np.array([], dtype=np.int64)
            with file.open("rb") as handle, _video(handle, self.name) as (container, stream):
                self.num_frames = sum(1 for _ in container.decode(stream))
            if not self.num_frames:
                raise ValueError(f"{file} holds no frames that can be decoded") from None
            self._probe()

    def read(self, start: int, count: int, step: int = 1, gray: bool = False) -> np.ndarray:
        """Read frames; see ``FrameStream``."""
        wanted = range(start, start + count * step, step)
        frames = self._decode(wanted, gray, seek=True) if len(self._times) else None
        if frames is None:
            frames = self._decode(wanted, gray, seek=False)
        if frames is None or len(frames) < count:
            raise _EndedEarlyError(f"{self.file} ends before frame {wanted[-1] + 1} of {self.num_frames}")
        return np.stack(frames)

    def _decode(self, wanted: range, gray: bool, seek: bool) -> list[np.ndarray] | None:
        """The wanted frames, as many as there are; None if seeking leads to places the index does not know."""
        frames: list[np.ndarray] = []
        with self.file.open("rb") as handle, _video(handle, self.name) as (container, stream):
            if seek:
                target = self._times[wanted[0]]
                keyframe = bisect_right(self._keyframes, target) - 1
                container.seek(int(self._keyframes[max(keyframe, 0)]), stream=stream)
            for number, frame in enumerate(container.decode(stream)):
                if seek:
                    number = int(np.searchsorted(self._times, frame.pts)) if frame.pts is not None else -1
                    if not 0 <= number < self.num_frames or self._times[number] != frame.pts:
                        return None
                if number > wanted[len(frames)]:
                    return None if seek else frames
                if number == wanted[len(frames)]:
                    frames.append(_to_array(frame, gray))
                    if frames[0].shape != frames[-1].shape:
                        raise ValueError(
                            f"{self.file} changes from {_dimensions(frames[0])} to {_dimensions(frames[-1])} at frame "
                            f"{number + 1}"
                        )
                if len(frames) == len(wanted):
                    break
        return None if seek and len(frames) < len(wanted) else frames


class _EndedEarlyError(ValueError):
    """A video has fewer frames than its index says."""


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
                raise ValueError(f"{file} is {_dimensions(frames[-1])}, others of {self.name} {_dimensions(frames[0])}")
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
