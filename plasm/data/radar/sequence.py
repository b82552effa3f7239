"""Composites in the order of time, on one grid, at one step."""

import glob
import itertools
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from plasm.data.limits import check_bytes

from .formats import open_frames
from .frames import Frame, ReadOptions
from .grid import Grid

_NAMED_IN_ERRORS = 5


@dataclass(frozen=True)
class Sequence:
    """Frames, each a step after the one before.

    Attributes:
        frames: In the order of time.
        step: From one to the next; None of one frame.
    """

    frames: tuple[Frame, ...]
    step: timedelta | None

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def grid(self) -> Grid:
        """Of all of them."""
        return self.frames[0].grid

    @property
    def minutes(self) -> float:
        """The step in minutes.

        Raises:
            ValueError: If there is one frame alone.
        """
        if self.step is None:
            raise ValueError(f"{self.frames[0].file} is one frame alone, which has no step")
        return self.step.total_seconds() / 60

    def rates(self, start: int = 0, count: int | None = None, stride: int = 1) -> np.ndarray:
        """Read frames.

        Args:
            start: The first.
            count: How many; all from the first on by default.
            stride: From one to the next.

        Returns:
            mm/h, (T, H, W) float32; NaN where nothing was measured.

        Raises:
            ValueError: If a file is damaged, or nothing was measured in it.
        """
        chosen = self.frames[start::stride][:count]
        check_bytes(
            len(chosen) * self.grid.height * self.grid.width * 8, str(chosen[0].file.parent),
            f"{len(chosen)} frames of {self.grid.height}x{self.grid.width}",
        )  # fmt: skip
        rates = []
        for frame in chosen:
            rate = frame.load()
            if rate.shape != (frame.grid.height, frame.grid.width):
                raise ValueError(f"{frame.file} holds {rate.shape} values for a grid of {frame.grid}")
            if np.isnan(rate).all():
                raise ValueError(f"{frame.file} at {_text(frame.time)}: every cell is missing, nothing was measured")
            rates.append(rate)
        return np.stack(rates)

    def index(self, time: datetime) -> int:
        """Number of the frame at a time.

        Raises:
            ValueError: If there is none.
        """
        for number, frame in enumerate(self.frames):
            if frame.time == time:
                return number
        first, last = (_text(self.frames[end].time) for end in (0, -1))
        raise ValueError(f"there is no frame at {_text(time)}; there are those from {first} to {last}")


def find_files(source: str | Path) -> list[Path]:
    """The files that a folder (not its subfolders), a file or a pattern such as ``radar/20160928*`` names."""
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        found: Iterable[Path] = path.iterdir()
    else:
        found = map(Path, glob.glob(str(source)))
    files = sorted(file for file in found if file.is_file() and not file.name.startswith("."))
    if not files:
        raise FileNotFoundError(f"{source} is no radar file, and no folder or pattern with any")
    return files


def below(root: Path, pattern: str) -> str | Path:
    """What a pattern names in a folder, for ``open_sequence``; the folder's own name is no pattern."""
    path = root / pattern
    return path if path.exists() else os.path.join(glob.escape(str(root)), pattern)


def open_sequence(source: str | Path, options: ReadOptions | None = None) -> Sequence:
    """Read the metadata of the radar files of an event, and sort their frames by time.

    Args:
        source: Folder, file, or pattern; see ``find_files``. Files of other kinds are left alone.
        options: Metadata that they may lack.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If one is damaged or none is rain; if grid, quantity or step are mixed; or if there is a gap.
        ImportError: If reading them needs a package that is not installed.
    """
    frames: list[Frame] = []
    for file in find_files(source):
        frames += open_frames(file, options) or []
    if not frames:
        raise FileNotFoundError(
            f"{source} holds no radar files: ODIM or KNMI HDF5, FMI PGM (.gz), GRIB, CF NetCDF or GeoTIFF"
        )
    frames.sort(key=lambda frame: (frame.time, str(frame.file)))
    first = frames[0]
    for frame in frames[1:]:
        if frame.quantity != first.quantity:
            raise ValueError(
                f"quantities are mixed: {first.quantity} in {first.file}, {frame.quantity} in {frame.file}"
            )
        if difference := first.grid.difference(frame.grid):
            raise ValueError(f"grids are mixed: {first.file} and {frame.file} have {difference}")
    return Sequence(tuple(frames), _step(frames))


def _step(frames: list[Frame]) -> timedelta | None:
    if len(frames) == 1:
        return None
    pairs = list(itertools.pairwise(frames))
    for one, other in pairs:
        if one.time == other.time:
            raise ValueError(f"two frames are of {_text(one.time)}: {one.file} and {other.file}")
    counts = Counter(other.time - one.time for one, other in pairs)
    most = max(counts.values())
    step = min(step for step, count in counts.items() if count == most)
    for one, other in pairs:
        between = other.time - one.time
        if between == step:
            continue
        period = f"{_text(one.time)} ({one.file.name}) to {_text(other.time)} ({other.file.name})"
        if between > step and between % step == timedelta(0):
            missing = [one.time + step * number for number in range(1, between // step)]
            names = ", ".join(map(_text, missing[:_NAMED_IN_ERRORS]))
            more = f" and {len(missing) - _NAMED_IN_ERRORS} more" if len(missing) > _NAMED_IN_ERRORS else ""
            raise ValueError(
                f"{one.file.parent} has a gap from {period}: no frame of {names}{more}. Name one event, such as "
                f"'{one.file.parent}/{one.time:%Y%m%d}*'"
            )
        raise ValueError(f"{one.file.parent} mixes steps: {_span(step)}, and {_span(between)} from {period}")
    return step


def _span(step: timedelta) -> str:
    return f"{step.total_seconds() / 60:g} minutes"


def _text(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M}" + (f":{time:%S}" if time.second else "")
