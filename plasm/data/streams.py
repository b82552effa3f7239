"""Streams of frames on disk: what all have in common, and folders of images.

Nothing is decoded before it is asked for.

Shapes: T frames, H x W pixels, K channels as they are in the file.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from .decoding import PAGED, decode_image, has_pages

__all__ = [
    "FrameStream",
    "ImageStream",
    "check_alike",
    "check_finite",
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


def check_finite(values: np.ndarray, name: str, first: int, step: int = 1, fill: float | None = None) -> np.ndarray:
    """Refuse NaN and infinities, which would turn every metric and weight into them.

    Args:
        values: (T, ...).
        name: Of the file.
        first: Row of the first of them in the file.
        step: Rows from one to the next.
        fill: What is taken for NaN, if anything.

    Returns:
        The values, NaN filled.

    Raises:
        ValueError: If there is one; it names file and row.
    """
    if values.dtype.kind != "f":
        return values
    if fill is not None:
        values = np.where(np.isnan(values), values.dtype.type(fill), values)
    rows = np.isfinite(values).reshape(len(values), -1).all(1)
    if not rows.all():
        row = first + int(rows.argmin()) * step
        raise ValueError(
            f"{name} should hold finite values (of images, in [0, 1]); its {values.dtype} are not finite in row {row:,}"
            ", counted from 0: NaN (missing) or infinite. fill=0 takes 0 for what is missing"
        )
    return values


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
