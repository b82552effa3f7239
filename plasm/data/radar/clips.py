"""Radar as clips to train on: crops of events, drawn by how wet they are."""

import hashlib
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from plasm.data.counter_hash import counter_hash, uniform_below
from plasm.data.datasets import register_dataset
from plasm.data.mnist import Split
from plasm.files import listed

from .frames import ReadOptions
from .sequence import Sequence, below, find_files, open_sequence
from .values import normalize

_BLOCK = 32
"""Side of the blocks whose wetness is known."""
_APART = 128
"""Columns between regions of one event on different sides: rain of one must not be seen by the other."""
_MISSING = 255
_TOLERANCE = 0.25
_LEAST_COVERED = 0.5
_SPLITS = ("train", "val", "test")
_VERSION = b"1"


@dataclass(frozen=True)
class Region:
    """Columns of an event, its pixels in a cache.

    Attributes:
        name: Of the event.
        files: That they are of.
        folder: Of the cache: ``pixels.npy``, (T, H, W) uint8, 255 for missing, and ``blocks.npy``.
        columns: First column, and the one after the last.
        minutes: From frame to frame.
        strides: Frames from one of a clip to its next.
    """

    name: str
    files: tuple[Path, ...]
    folder: Path
    columns: tuple[int, int]
    minutes: float
    strides: tuple[int, ...]

    def pixels(self) -> np.ndarray:
        """The event's pixels, mapped: (T, H, W) uint8."""
        pixels: np.ndarray = np.load(self.folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
        return pixels[..., slice(*self.columns)]

    def blocks(self) -> np.ndarray:
        """Mean pixel and share of covered cells, (2, T, h, w), of the blocks that lie in the region whole."""
        blocks: np.ndarray = np.load(self.folder / "blocks.npy", allow_pickle=False)
        return blocks[..., -(-self.columns[0] // _BLOCK) : self.columns[1] // _BLOCK]


class RadarClips(Dataset[Tensor]):
    """Square crops, (T, 1, size, size) floats in [0, 1] by ``normalize``; a function of (seed, epoch, index).

    A crop is drawn with a chance that grows as its mean pixel over the clip's time, among those of which half the
    cells are covered at least; a share ``dry`` of the crops is drawn evenly instead. Missing cells are 0 in a clip;
    ``get_weighed_batch`` gives their weight beside it.

    Args:
        regions: Where crops come from.
        num_frames: T.
        num_clips: Of an epoch.
        size: Side of a crop.
        seed: Of what is drawn.
        dry: Share of the crops that are drawn evenly.
        heavy: h of the weight 1 + h x of a cell of pixel x.
        augment: Flip and turn, by quarters.

    Raises:
        ValueError: If a region is too small or too short, or nothing was measured in it.
    """

    def __init__(
        self,
        regions: list[Region],
        num_frames: int,
        num_clips: int,
        size: int,
        seed: int,
        dry: float = 0.1,
        heavy: float = 0.0,
        augment: bool = True,
    ) -> None:
        self.regions, self.num_frames, self.num_clips, self.size = regions, num_frames, num_clips, size
        self.seed, self.heavy, self.augment, self.epoch = seed, heavy, augment, 0
        self.files = [file for region in regions for file in region.files]
        tables = [(number, stride) for number, region in enumerate(regions) for stride in region.strides]
        found = [(number, stride, self._wetness(regions[number], stride)) for number, stride in tables]
        self.tables = [(number, stride, wet.shape) for number, stride, wet in found if wet.size]
        if not self.tables:
            names = ", ".join(region.name for region in regions)
            raise ValueError(f"no event ({names}) has {num_frames} frames, {tables[0][1]} apart")
        wetness = np.concatenate([wet.ravel() for _, _, wet in found])
        allowed = wetness >= 0
        if not allowed.any():
            raise ValueError(f"no crop of {size} x {size} is covered by half: {', '.join(r.name for r in regions)}")
        chance = allowed / allowed.sum()
        wetness = np.maximum(wetness, 0)
        if wetness.sum() > 0:
            chance = dry * chance + (1 - dry) * wetness / wetness.sum()
        self.cumulative = np.cumsum(chance)
        self.starts = np.cumsum([0, *(wet.size for _, _, wet in found if wet.size)])

    def _wetness(self, region: Region, stride: int) -> np.ndarray:
        """Mean pixel of each crop, (first frames, block rows, block columns); -1 of those that are not covered."""
        wide = region.columns[1] - region.columns[0]
        mean, covered = region.blocks()
        side, high = -(-self.size // _BLOCK), region.pixels().shape[1]
        if min(high, wide) < self.size or min(mean.shape[1:]) < side:
            raise ValueError(f"{region.name} has {high} x {wide} cells, too few for crops of {self.size}")
        span = (self.num_frames - 1) * stride + 1
        mean, covered = (_box(_box(_box(values, 0, span), 1, side), 2, side) for values in (mean, covered))
        return np.where(covered >= _LEAST_COVERED, mean, -1).astype(np.float32)

    def set_epoch(self, epoch: int) -> None:
        """Draw the crops of another epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, index: int) -> Tensor:
        return self._clip(index)[0]

    def get_weighed_batch(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Clips, (B, T, 1, H, W), and weights of their cells in a loss, of the same shape.

        A cell of pixel x has the weight 1 + ``heavy`` x, one that is missing 0.
        """
        clips, covered = map(torch.stack, zip(*map(self._clip, indices), strict=True))
        return clips, covered * (1 + self.heavy * clips)

    def _clip(self, index: int) -> tuple[Tensor, Tensor]:
        """Pixels and whether they are covered, (T, 1, H, W) each."""
        bits = [counter_hash(self.seed, self.epoch, index, draw) for draw in range(4)]
        draw = int(uniform_below(bits[0], 1 << 31)) / (1 << 31) * self.cumulative[-1]
        position = int(np.searchsorted(self.cumulative, draw, side="right"))
        table = int(np.searchsorted(self.starts, position, side="right")) - 1
        number, stride, shape = self.tables[table]
        start, row, column = (int(i) for i in np.unravel_index(position - self.starts[table], shape))
        region = self.regions[number]
        pixels = region.pixels()
        offset = -region.columns[0] % _BLOCK
        row = min(row * _BLOCK + int(uniform_below(bits[1], _BLOCK)), pixels.shape[1] - self.size)
        column = min(offset + column * _BLOCK + int(uniform_below(bits[2], _BLOCK)), pixels.shape[2] - self.size)
        end = start + (self.num_frames - 1) * stride + 1
        crop = torch.from_numpy(
            np.ascontiguousarray(pixels[start:end:stride, row : row + self.size, column : column + self.size])
        )
        if self.augment:
            turn = int(uniform_below(bits[3], 8))
            crop = torch.rot90(crop, turn % 4, (1, 2))
            crop = crop.flip(2) if turn >= 4 else crop
        covered = (crop != _MISSING)[:, None]
        return (crop[:, None] * covered).float() / (_MISSING - 1), covered.float()


def _box(values: np.ndarray, axis: int, side: int) -> np.ndarray:
    """Means over ``side`` neighbours along an axis, of which so many fewer positions are left."""
    if values.shape[axis] < side:
        return np.zeros([0 if a == axis else n for a, n in enumerate(values.shape)])
    whole = np.moveaxis(np.cumsum(values, axis, dtype=np.float64), axis, 0)
    sums = whole[side - 1 :].copy()
    sums[1:] -= whole[:-side]
    return np.moveaxis(sums / side, 0, axis)


@register_dataset("radar")
def radar(
    root: Path,
    split: Split,
    *,
    num_clips: int,
    num_frames: int,
    seed: int,
    events: Mapping[str, Any] | None = None,
    size: int = 128,
    step: float = 5.0,
    km: float = 1.0,
    strides: tuple[int, ...] | int | None = None,
    dry: float = 0.1,
    heavy: float = 0.0,
    cache: str | None = None,
    unit: str | None = None,
    zr: tuple[float, float] | None = None,
    array: str | None = None,
    pattern: str | None = None,
) -> RadarClips:
    """Crops of radar composites, (T + T', 1, size, size), pixels by ``normalize``.

    Args:
        root: Folder with the files.
        split: "train", "val" or "test".
        num_clips: Of an epoch; every epoch of training has others.
        num_frames: T + T'.
        seed: Of the training crops; those of validation and test are always the same, and neither flipped nor turned.
        events: The events, one continuous sequence each, as a pattern of files below ``root``, and which side each is
            on: {"2016*": "train", "2017*": "test", "us/*": {"train": (0, 5000), "val": (5128, 7000)}}. An event may be
            on several sides by columns, from a first to before a last, with 128 between. By default what lies in the
            folders train, val and test, each one event.
        size: Side of a crop in cells.
        step: Minutes from frame to frame that the model is for.
        km: Kilometres from cell to cell that it is for. Files must have it to a quarter.
        strides: Training clips take every n-th frame, for each of these numbers. By default that nearest to ``step``,
            which must be met to a quarter; validation and test always take it.
        dry: Share of the crops drawn evenly, not by wetness.
        heavy: h of the weight 1 + h x of a cell of pixel x in the loss. One that is missing has none.
        cache: Folder for decoded frames, a byte a cell; by default plasm/radar in the user's cache.
        unit: See ``ReadOptions``.
        zr: See ``ReadOptions``.
        array: See ``ReadOptions``.
        pattern: See ``ReadOptions``.

    Raises:
        FileNotFoundError: If there are no files.
        ValueError: If an option is wrong, or a file is not what it should be.
    """
    if size < 16 or not 0 <= dry <= 1 or heavy < 0 or step <= 0 or km <= 0:
        raise ValueError(
            f"size is at least 16, dry lies in [0, 1], heavy is at least 0, step and km above 0; got {size}, {dry}, "
            f"{heavy}, {step} and {km}"
        )
    chosen = (strides,) if isinstance(strides, int) else strides
    if chosen is not None and (not chosen or min(chosen) < 1):
        raise ValueError(f"strides are numbers of frames of at least 1, got {strides!r}")
    options = ReadOptions(unit, None if zr is None else (zr[0], zr[1]), array, pattern)
    regions = []
    for name, columns in events_of(root, split, events):
        sequence = open_sequence(below(root, name), options)
        nearest = nearest_stride(name, sequence, step, km)
        first, last = columns_of(name, sequence, columns)
        mine = chosen if chosen and split == "train" else (nearest,)
        folder = _cached(sequence, options, _cache_root(cache))
        regions.append(
            Region(name, tuple(f.file for f in sequence.frames), folder, (first, last), sequence.minutes, mine)
        )
    training = split == "train"
    return RadarClips(
        regions, num_frames, num_clips, size, seed if training else 0, dry, heavy, training,
    )  # fmt: skip


def events_of(root: Path, split: Split, events: Mapping[str, Any] | None) -> list[tuple[str, tuple[int, int] | None]]:
    """(pattern, columns) of the events on a side."""
    if events is None:
        events = {name: name for name in _SPLITS if (root / name).is_dir()}
    if not isinstance(events, Mapping):
        raise ValueError(f"events are {{pattern: side}}, such as {{'2016*': 'train'}}, got {events!r}")
    found: list[tuple[str, tuple[int, int] | None]] = []
    for name, sides in events.items():
        if isinstance(sides, str):
            sides = {sides: None}
        if not isinstance(sides, Mapping) or not sides or set(sides) - set(_SPLITS):
            raise ValueError(f"events: the side of {name} is train, val, test, or columns of them, got {sides!r}")
        if len(sides) > 1:
            _check_apart(name, sides)
        if split in sides:
            columns = sides[split]
            if columns is not None and not _is_pair(columns):
                raise ValueError(f"events: columns of {name} are (first, last), such as (0, 5000), got {columns!r}")
            found.append((str(name), None if columns is None else (columns[0], columns[1])))
    _check_files_apart(root, events)
    if not found:
        raise ValueError(f"no event is on the side {split}: events={{'PATTERN': '{split}', ...}}, or a folder {split}")
    return found


def _is_pair(columns: Any) -> bool:
    return isinstance(columns, list | tuple) and [type(number) for number in columns] == [int, int]


def _check_apart(name: str, sides: Mapping[str, Any]) -> None:
    try:
        ordered = sorted((int(first), int(last), side) for side, (first, last) in sides.items())
    except (TypeError, ValueError) as error:
        raise ValueError(f"events: {name} on several sides needs (first, last) columns of each, got {sides}") from error
    for (_, end, one), (start, _, other) in itertools.pairwise(ordered):
        if start - end < _APART:
            raise ValueError(
                f"events: {name} has {start - end} columns between {one} and {other}, wanted {_APART} at least: rain "
                f"must not be seen from both sides"
            )


def _check_files_apart(root: Path, events: Mapping[str, Any]) -> None:
    """Refuse patterns on different sides that name the same file; one pattern may have columns on several."""
    first: dict[Path, tuple[str, set[str]]] = {}
    for name, sides in events.items():
        mine = {sides} if isinstance(sides, str) else set(sides)
        with suppress(FileNotFoundError):  # of the side that is read it is said later
            for file in find_files(below(root, name)):
                other, theirs = first.setdefault(file, (name, mine))
                if other != name and mine != theirs:
                    raise ValueError(
                        f"events: {other} ({listed(sorted(theirs))}) and {name} ({listed(sorted(mine))}) both name "
                        f"{file}: rain must not be seen from both sides"
                    )


def columns_of(name: str, sequence: Sequence, columns: tuple[int, int] | None) -> tuple[int, int]:
    """The columns of an event that count, all by default; a ValueError if it has not these."""
    width = sequence.grid.width
    first, last = columns or (0, width)
    if not 0 <= first < last <= width:
        raise ValueError(f"events: {name} has columns 0 to {width}, got ({first}, {last})")
    return first, last


def nearest_stride(name: str, sequence: Sequence, step: float, km: float) -> int:
    """The stride that comes nearest to the step in minutes; a ValueError if it, or the spacing, is not met."""
    spacing = sequence.grid.km
    if spacing is not None and abs(spacing / km - 1) > _TOLERANCE:
        raise ValueError(f"{name} has cells of {spacing:.3g} km, wanted {km:g}: give km=, or bring others")
    stride = max(1, round(step / sequence.minutes))
    if abs(stride * sequence.minutes / step - 1) > _TOLERANCE:
        raise ValueError(f"{name} has a step of {sequence.minutes:g} minutes, wanted {step:g}: give step=")
    return stride


def _cache_root(cache: str | None) -> Path:
    if cache is not None:
        return Path(cache)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plasm" / "radar"


def _cached(sequence: Sequence, options: ReadOptions, root: Path) -> Path:
    """Folder with the decoded frames, made if it is not there: decoding a frame takes longer than training on it."""
    digest = hashlib.sha256(_VERSION + repr(options).encode())
    for frame in sequence.frames:
        stat = frame.file.stat()
        digest.update(f"{frame.file.resolve()} {stat.st_size} {stat.st_mtime_ns} {frame.time}".encode())
    folder = root / digest.hexdigest()[:32]
    if not (folder / "blocks.npy").is_file():
        with _beside(folder) as beside:
            _decode(sequence, beside)
    return folder


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder that becomes this one when all is in it; of two processes one wins, with the same.

    The winner removes what others have so far: they may have been killed.
    """
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    beside.mkdir(parents=True, exist_ok=True)
    try:
        yield beside
        beside.rename(folder)
        for other in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(other, ignore_errors=True)
    except OSError:
        if not (folder / "blocks.npy").is_file():
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _decode(sequence: Sequence, folder: Path) -> None:
    height, width = sequence.grid.height, sequence.grid.width
    rows, columns = height // _BLOCK, width // _BLOCK
    shape = (len(sequence), height, width)
    pixels = np.lib.format.open_memmap(folder / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
    blocks = np.zeros((2, len(sequence), rows, columns), np.float32)
    from tqdm import tqdm

    for number in tqdm(range(len(sequence)), desc="decode, once", unit="frame", leave=False):
        (rate,) = sequence.rates(number, 1)
        missing = np.isnan(rate)
        frame = normalize(rate)
        pixels[number] = np.where(missing, _MISSING, np.round(frame * (_MISSING - 1)).astype(np.uint8))
        for values, whole in zip((frame, ~missing), blocks[:, number], strict=True):
            inner = values[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK)
            whole[:] = inner.mean((1, 3))
    pixels.flush()
    del pixels
    np.save(folder / "blocks.npy", blocks)
