"""Streams of frames on disk: what all have in common, and folders of images.

Frames are decoded on access.

Shapes: T frames, H x W pixels, K channels as they are in the file.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from torch import Tensor

from .decoding import decode_image
from .frames import FrameFormat
from .layouts import check_finite
from .limits import check_bytes

# Bytes of the frames that are converted together.
_BLOCK_BYTES = 1 << 22
# Bytes that a stream takes in memory, roughly.
_STREAM_BYTES = 1000
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
    # Frames read one by one cost no more than together, as those of an array that is unpacked as a whole do.
    _frames_apart = False

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

    def read_as(self, frame_format: FrameFormat, start: int, count: int, step: int = 1) -> Tensor:
        """Read frames as a model takes them.

        They are converted a few at a time: where small ones are wanted, large ones never lie in memory together.

        Args:
            frame_format: Channels and size.
            start: Index of the first.
            count: How many.
            step: Distance from one to the next.

        Returns:
            (count, C, H, W), floats in [0, 1].

        Raises:
            FileTooLargeError: If they would take more memory than the limit.
            ValueError: See ``read`` and ``FrameFormat``.
        """
        self._check_size(frame_format, count)
        gray = frame_format.channels == 1
        several = self._several()
        blocks: Iterable[np.ndarray]
        if self._frames_apart:
            blocks = (
                self.read(start + first * step, min(several, count - first), step, gray)
                for first in range(0, count, several)
            )
        else:
            frames = self.read(start, count, step, gray)
            blocks = (frames[first : first + several] for first in range(0, count, several))
        return join_blocks((frame_format(block, self.name) for block in blocks), count)

    def _check_read(self, count: int) -> None:
        # Of one frame that is not known yet, the decoder knows.
        if size := getattr(self, "size", None):
            needed = count * math.prod(size) * self.channels
            check_bytes(needed, self.name, f"{count:,} frames of {size[1]}x{size[0]}")

    def _several(self) -> int:
        """Frames that are converted together."""
        return max(1, _BLOCK_BYTES // (math.prod(self.size) * self.channels))

    def _check_size(self, frame_format: FrameFormat, count: int) -> None:
        height, width = frame_format.size or self.size
        needed = 4 * count * frame_format.channels * height * width
        check_bytes(needed, self.name, f"{count:,} frames of {width}x{height}")

    def _probe(self) -> None:
        """Read the first and the last frame: a damaged or cut file shows early."""
        first = self.read(0, 1)
        last = self.read(self.num_frames - 1, 1) if self.num_frames > 1 else first
        self.size, self.channels = (first.shape[1], first.shape[2]), first.shape[3]
        check_alike(first[0], last[0], f"the last frame of {self.name}", "the first")


class ClipStream(FrameStream):
    """Frames of one clip of an array whose axes are known.

    Args:
        file: The array's file.
        key: Name of the array there; None for the only one.
        layout: Order of its axes; see ``layouts``.
        shape: Of the array.
        clip: Which clip, if there is a "b".
        fill: What is taken for missing values.
        rows: First and number of the array's frames that are the stream's; all by default.
    """

    def __init__(
        self,
        file: Path,
        key: str | None,
        layout: str,
        shape: tuple[int, ...],
        clip: int = 0,
        fill: float | None = None,
        rows: tuple[int, int] | None = None,
    ) -> None:
        sizes = {"t": 1, "c": 1, **dict(zip(layout, shape, strict=True))}
        self.file, self.key, self.layout, self.clip, self.fill = file, key, layout, clip, fill
        self.name = f"{file}, clip {clip}" if "b" in layout else str(file)
        self.size, self.channels = (sizes["h"], sizes["w"]), sizes["c"]
        self.first, self.num_frames = rows or (0, sizes["t"])
        if not self.num_frames:
            raise ValueError(f"{self.name} holds no frames")
        if self.first + self.num_frames > sizes["t"]:
            raise ValueError(f"{self.name} has {sizes['t']} frames, not {self.first + self.num_frames}")

    def read(self, start: int, count: int, step: int = 1, gray: bool = False) -> np.ndarray:
        """Read frames; see ``FrameStream``."""
        first = self.first + start
        frames = self._read(slice(first, first + (count - 1) * step + 1, step), count)
        return check_finite(frames, self.name, first, step, self.fill)

    @abstractmethod
    def _read(self, rows: slice, count: int) -> np.ndarray:
        """So many rows of the array, (count, H, W, K), whatever is in them."""


def clips_of(layout: str, shape: tuple[int, ...], name: str) -> range:
    """The clips of an array, each a stream; a FileTooLargeError if these would take more memory than the limit."""
    count = shape[layout.index("b")] if "b" in layout else 1
    check_bytes(count * _STREAM_BYTES, name, f"{count:,} clips")
    return range(count)


def join_blocks(blocks: Iterable[Tensor], count: int) -> Tensor:
    """So many frames that are converted a few at a time, as one tensor: beside it those few alone are in memory."""
    frames, joined = None, 0
    for block in blocks:
        if len(block) == count:
            return block
        if frames is None:
            frames = block.new_empty(count, *block.shape[1:])
        frames[joined : joined + len(block)] = block
        joined += len(block)
    assert frames is not None
    return frames[:joined]


def check_alike(first: np.ndarray, other: np.ndarray, name: str, others: str) -> None:
    """Refuse a frame that differs from the first, (H, W, K) each, in size, channels or depth; say in what.

    ``name`` is of the other; ``others`` that of the first, or of all that are as it is.
    """
    if first.shape == other.shape and first.dtype == other.dtype:
        return
    one, two = (
        (f"{a.shape[1]}x{a.shape[0]}", _COLOURS.get(a.shape[2], f"of {a.shape[2]} channels"), f"of {a.dtype}")
        for a in (other, first)
    )
    found, expected = next((a, b) for a, b in zip(one, two, strict=True) if a != b)
    raise ValueError(
        f"{name} is {found}, {others} {expected}: the frames of a clip are alike; convert it, or take it out"
    )


class ImageStream(FrameStream):
    """Images in order, each a frame; for channels and fill see ``decode_image``.

    Raises:
        ValueError: If there is none, or the first or last cannot be decoded, or they differ in size.
    """

    _frames_apart = True

    def __init__(self, files: Sequence[Path], name: str, channels: int = 3, fill: float | None = None) -> None:
        self.files, self.name, self.num_frames = files, name, len(files)
        self.wanted, self.fill = channels, fill
        if not files:
            raise ValueError(f"{name} holds no frames")
        self._probe()

    def read(self, start: int, count: int, step: int = 1, gray: bool = False) -> np.ndarray:
        """Read frames; see ``FrameStream``."""
        self._check_read(count)
        frames: list[np.ndarray] = []
        for file in self.files[start : start + (count - 1) * step + 1 : step]:
            with file.open("rb") as handle:
                frame = decode_image(handle, str(file), gray, self.wanted, self.fill)
            channels = max(frame.shape[2], frames[0].shape[2] if frames else 0)
            if frames and frames[0].shape[2] < channels:
                frames = [_with_channels(each, channels) for each in frames]
            frames.append(_with_channels(frame, channels))
            check_alike(frames[0], frames[-1], str(file), f"others of {self.name}")
        return np.stack(frames)

    def _probe(self) -> None:
        ends = self.read(0, min(2, self.num_frames), max(1, self.num_frames - 1))
        self.size, self.channels = (ends.shape[1], ends.shape[2]), ends.shape[3]


def _with_channels(frame: np.ndarray, channels: int) -> np.ndarray:
    """Gray as colour, and either with an alpha channel: the same picture beside others that have more channels."""
    if frame.shape[2] == channels:
        return frame
    if frame.shape[2] == 1:
        frame = frame.repeat(3, 2)
    if channels == 4:
        opaque = 1 if frame.dtype.kind == "f" else np.iinfo(frame.dtype).max
        frame = np.concatenate([frame, np.full_like(frame[..., :1], opaque)], 2)
    return frame
