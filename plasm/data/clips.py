"""Clips cut from streams of frames, and the data set of a user's own files."""

import hashlib
import logging
import math
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from .datasets import register_dataset
from .frames import Fit, FrameFormat, nearly_black
from .layouts import ArrayOptions
from .limits import check_bytes
from .mnist import Split
from .sources import OnError, find_sources, long_enough, open_source, open_sources
from .splits import SplitFolders, find_splits
from .streams import FrameStream

_LOG = logging.getLogger(__name__)
# Of a clip in a list of clips, while that is made and shuffled.
_WINDOW_BYTES = 64


def cut_windows(length: int, span: int, stride: int, from_end: bool = False) -> list[int]:
    """First frames of the windows of ``span`` frames in a stream, ``stride`` frames from one to the next.

    With ``from_end`` the last window ends with the stream, as in the field's preparations of KTH, KITTI and Caltech;
    else the first one starts with it. A number that is not positive is a ValueError.
    """
    return list(_starts(length, span, stride, from_end))


def _starts(length: int, span: int, stride: int, from_end: bool) -> range:
    if min(span, stride) < 1:
        raise ValueError(f"windows have a span and a stride of at least 1, got {span} and {stride}")
    offset = (length - span) % stride if from_end else 0
    return range(offset, length - span + 1, stride)


def cut_all(streams: Sequence[FrameStream], span: int, stride: int, from_end: bool = False) -> np.ndarray:
    """(stream, first frame) of the windows of all streams, (N, 2); see ``cut_windows``.

    Raises:
        FileTooLargeError: If there are more than fit in the memory that is allowed.
    """
    starts = [_starts(stream.num_frames, span, stride, from_end) for stream in streams]
    for stream, each in zip(streams, starts, strict=True):
        check_bytes(_WINDOW_BYTES * len(each), stream.name, f"a list of {len(each):,} clips")
    parts = [
        np.stack([np.full(len(each), number), np.arange(each.start, each.stop, each.step)], 1)
        for number, each in enumerate(starts)
    ]
    return np.concatenate([np.empty((0, 2), np.int64), *parts])


class StreamClips(Dataset[Tensor]):
    """Windows of streams as clips, (T, C, H, W) floats in [0, 1], decoded on access.

    Args:
        streams: Where frames come from. Workers get copies: a stream holds names and an index, no open file.
        windows: (stream, first frame) of each clip.
        num_frames: T.
        frame_format: Channels and size of the clips.
        step: Frames from one of a clip to its next.

    Raises:
        ValueError: If there are no clips, or they would differ in size.
    """

    def __init__(
        self,
        streams: Sequence[FrameStream],
        windows: Sequence[tuple[int, int]] | np.ndarray,
        num_frames: int,
        frame_format: FrameFormat,
        step: int = 1,
    ) -> None:
        if not len(windows):
            raise ValueError(f"no stream is long enough for a clip of {num_frames} frames, {step} apart")
        sizes = {stream.size: stream.name for stream in streams}
        if frame_format.size is None and len(sizes) > 1:
            (one, name), (other, other_name) = list(sizes.items())[:2]
            raise ValueError(
                f"frames differ in size, {one} (H, W) in {name} and {other} in {other_name}: give size=(H, W)"
            )
        self.streams, self.windows = streams, np.array(windows, dtype=np.int64)
        self.num_frames, self.frame_format, self.step = num_frames, frame_format, step

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Tensor:
        stream, start = self.windows[index]
        return self.streams[stream].read_as(self.frame_format, int(start), self.num_frames, self.step)


def hold_out(names: Sequence[str], ratio: float) -> set[str]:
    """Choose about a ratio of the names by a hash of each, so that adding or removing names never moves another."""
    return {name for name in names if _position(name) < ratio}


def hold_out_fixed(names: Sequence[str], ratio: float) -> set[str]:
    """Choose exactly a ratio of the names, rounded down, at least one, by a hash of each.

    For data sets whose files are published: with other names, others may be chosen.
    """
    return set(sorted(names, key=_position)[: max(1, math.floor(ratio * len(names)))])


def _position(name: str) -> Fraction:
    """Where a name lies from 0 to 1, evenly spread over all names."""
    return Fraction(int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest(), "big"), 1 << 256)


def split_sources(sources: Sequence[Path], root: Path, split: Split, val_share: float, test_share: float) -> list[Path]:
    """The sources of a split: whole files, never parts of one.

    Folders named after splits decide, where they are (see ``find_splits``); else a hash of the names does, of each name
    alone, so that files that come later move no other. Without a folder for validation, validation files come out of
    the training folder. Files so few that a split would be empty are split by the rank of their hashes; it is logged.
    Too few for three splits are a ValueError.
    """
    names = {source.relative_to(root).as_posix(): source for source in sources}
    folders = find_splits(names)
    train, val, test = (set(folders.sources[name]) for name in ("train", "val", "test"))
    if not folders:
        names = _without_twins(names)
        if len(names) < 3:
            raise ValueError(
                f"{root} holds {len(names)} source(s), too few to split by file: bring 3, or make folders train and "
                f"test in it"
            )
        if min(val_share, test_share) < 0 or val_share + test_share >= 1:
            raise ValueError(
                f"val_share and test_share are at least 0 and leave something for training, got {val_share} and "
                f"{test_share}"
            )
        test = _take(list(names), test_share, 2, root, "test")
        train = set(names) - test
        val_share += test_share
    if not val and split != "test":
        if len(train) < 2:
            raise ValueError(f"{root} leaves {len(train)} source(s) for training and validation; bring at least 2")
        val = _take(list(train), val_share, 1, root, "val")
        train = train - val
    chosen = {"train": train, "val": val, "test": test}[split]
    if not chosen:
        raise ValueError(f"{root} has folders for splits, but nothing for {split}: {folders.report(split, 0)}")
    if folders:
        _report(folders, split, chosen, names, root)
    return [source for name, source in names.items() if name in chosen]


def _without_twins(names: dict[str, Path]) -> dict[str, Path]:
    """Each source once, by its own name if it has one here: links may name it twice, and it would be in two splits."""
    firsts: dict[str, str] = {}
    for name, source in names.items():
        real = os.path.realpath(source)
        if real not in firsts or real == os.path.abspath(source):
            firsts[real] = name
    return {name: names[name] for name in firsts.values()}


def _report(folders: SplitFolders, split: Split, chosen: set[str], names: Mapping[str, Path], root: Path) -> None:
    """Say what a split takes, and warn of what lies unused or is in two splits by links."""
    _LOG.log(logging.WARNING if folders.unused else logging.INFO, "%s: %s", root, folders.report(split, len(chosen)))
    others = {
        os.path.realpath(names[name]): name for other in folders.sources if other != split
        for name in folders.sources[other]
    }  # fmt: skip
    twice = [
        (name, others[real]) for name in folders.sources[split] if (real := os.path.realpath(names[name])) in others
    ]
    if twice:
        _LOG.warning("%s: %d source(s) of %s are in another split, too: %s is %s", root, len(twice), split, *twice[0])


def _take(names: list[str], ratio: float, left: int, root: Path, split: str) -> set[str]:
    """Hold out a ratio of the names, at least one, so that some are left; log where this takes more than hashes."""
    by_hash = len(hold_out(names, ratio))
    count = min(max(1, by_hash), len(names) - left)
    chosen = sorted(names, key=_position)[:count]
    if count != by_hash:
        _say(
            f"{root}: the hashes of {len(names)} names put {by_hash} of them into {split}; so few files are split by "
            f"rank, and {split} gets {', '.join(chosen[:5])}{', ...' * (count > 5)}. That may change when files are "
            f"added or removed: folders train, val and test keep them apart, or give another {split}_share"
        )
    return set(chosen)


@lru_cache
def _say(message: str) -> None:
    """Once: a run makes several splits of the same files."""
    _LOG.warning("%s", message)


@register_dataset("clips")
def clips(
    root: Path,
    split: Split,
    *,
    num_frames: int,
    channels: int = 3,
    size: tuple[int, int] | None = None,
    fit: Fit = "crop",
    step: int = 1,
    stride: int | None = None,
    val_share: float = 0.1,
    test_share: float = 0.1,
    value_range: tuple[float, float] | None = None,
    axes: str | None = None,
    array: str | None = None,
    fill: float | None = None,
    on_error: OnError = "raise",
    verify: bool = False,
) -> StreamClips:
    """Clips of a user's own files: videos, GIFs, folders of images, .npy and .npz arrays, in any mixture.

    Args:
        root: Folder with them. With folders train, (val) and test inside, or the like, these are the splits.
        split: "train", "val" or "test"; always whole files.
        num_frames: T + T'.
        channels: C.
        size: (H, W); by default as in the files, which must then be of one size.
        fit: "crop" or "stretch"; see ``FrameFormat``.
        step: Frames from one of a clip to its next.
        stride: Frames from the first of a clip to that of the next clip; by default clips do not overlap.
        val_share: Share of the files for validation.
        test_share: Share of the files for testing.
        value_range: The values that become 0 and 1; see ``FrameFormat``.
        axes: What each axis of an array or TIFF is; see ``ArrayOptions``.
        array: Its name, of several in a file.
        fill: What is taken for values that are missing.
        on_error: "raise" if a file cannot be used, damaged or too short, or "skip" it; both say how many and which.
        verify: Decode every frame of every file now, so that damage in the middle of one is found, too.

    Raises:
        FileNotFoundError: If there is nothing there.
        ValueError: If files cannot be read or split.
    """
    if step < 1:
        raise ValueError(f"step is at least 1, got {step}")
    span = (num_frames - 1) * step + 1
    frame_format = FrameFormat(channels, None if size is None else (size[0], size[1]), fit, value_range=value_range)
    options = ArrayOptions(axes, array, fill)
    dark: dict[str, str] = {}

    def open_one(path: Path) -> list[FrameStream]:
        streams = long_enough(open_source(path, channels, options), span)
        for stream in streams:
            # The first frame tells whether values and channels can be used.
            pixels = stream.read_as(frame_format, 0, 1)
            if value_range is None and (hint := nearly_black(pixels)):
                dark[stream.name] = hint
            if verify:
                for number in range(0, stream.num_frames, span):
                    stream.read_as(frame_format, number, min(span, stream.num_frames - number))
        return streams

    sources = split_sources(find_sources(root), root, split, val_share, test_share)
    streams = open_sources(sources, open_one, on_error)
    for name, hint in list(dark.items())[:1]:
        _LOG.warning("%s, one of %d such, %s", name, len(dark), hint)
    windows = cut_all(streams, span, num_frames * step if stride is None else stride)
    return StreamClips(streams, windows, num_frames, frame_format, step)
