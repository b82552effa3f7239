"""KITTI for training, Caltech Pedestrian for testing: drives through towns (Geiger et al. 2013; Dollar et al. 2009).

The data set of Section IV-A of PLA-SM, prepared as since PredNet: 10 frames a second, 128x160, 10 + 1 frames.
"""

import re
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

from .clips import StreamClips, cut_all, cut_windows, hold_out_fixed
from .datasets import register_dataset
from .frames import FrameFormat
from .h5 import H5Stream, hickle_array, hickle_strings
from .mnist import Split
from .sources import OnError, find_folders, find_sources, long_enough, open_source, open_sources
from .streams import FrameStream

_PREPARED = "X_train.hkl"
_TEST_SETS = range(6, 11)
_CALTECH_STEP = 3


# Section IV-A says 20 frames; Table I and the results are of 10 + 1.
@register_dataset("kitticaltech", published={"train": 2_042, "test": 1_983}, published_frames=(11, 20))
def kitticaltech(
    root: Path,
    split: Split,
    *,
    num_frames: int,
    size: tuple[int, int] = (128, 160),
    camera: str = "image_03",
    stride: int | None = None,
    caltech_step: int = _CALTECH_STEP,
    on_error: OnError = "raise",
) -> StreamClips:
    """KITTI and Caltech Pedestrian: (T + T', 3, 128, 160), the middle of the frames, made smaller.

    Clips do not overlap, and the last ends with its recording. Caltech's 30 frames a second are taken every third, to
    match KITTI's 10. Of KITTI's recordings a tenth, at least one, is held out for validation.

    Args:
        root: Folder with, for training, KITTI's raw recordings (any folders below it that hold ``image_03/data``) or
            OpenSTL's ``kitti_hkl/X_train.hkl`` and ``sources_train.hkl``; for testing, ``caltech/set06/V000.seq`` and
            so on, or videos or folders of extracted frames in their place.
        split: "train", "val" or "test". Where Caltech's folders are numbered, the test set is its sets 6 to 10.
        num_frames: T + T'.
        size: (H, W).
        camera: Which of KITTI's folders.
        stride: Frames from one clip's first to the next one's; by default clips do not overlap.
        caltech_step: Take every so many frames of Caltech; 1 for frames extracted at 10 a second.
        on_error: "raise" if a recording cannot be used, or "skip" it; both say how many and which.

    Raises:
        FileNotFoundError: If the files are not there.
        ValueError: If they cannot be read, a .hkl file holds a pickle, or there are too few recordings.
    """
    if caltech_step < 1:
        raise ValueError(f"caltech_step is at least 1, got {caltech_step}")
    frame_format = FrameFormat(3, (size[0], size[1]))
    cut = num_frames if stride is None else stride
    if split == "test":
        streams = open_sources(_caltech(root / "caltech"), _at_least(num_frames * caltech_step), on_error)
        windows = [
            # The field keeps the last frame of every three.
            (number, (start + 1) * caltech_step - 1)
            for number, stream in enumerate(streams)
            for start in cut_windows(stream.num_frames // caltech_step, num_frames, cut, from_end=True)
        ]
        return StreamClips(streams, windows, num_frames, frame_format, caltech_step)
    prepared = next((folder for folder in (root / "kitti_hkl", root) if (folder / _PREPARED).is_file()), None)
    if prepared is not None:
        streams = _prepared(prepared)
        kept = _held_out([stream.name for stream in streams], split, root)
        streams = [stream for stream in streams if stream.name in kept and stream.num_frames >= num_frames]
    else:
        folders = {folder.relative_to(root).as_posix(): folder for folder in find_folders(root, camera)}
        if not folders:
            raise FileNotFoundError(
                f"{root} holds no {camera} and no kitti_hkl/{_PREPARED}; see docs/data/kitticaltech.md"
            )
        kept = _held_out(list(folders), split, root)
        streams = open_sources([folders[name] for name in folders if name in kept], _at_least(num_frames), on_error)
    return StreamClips(streams, cut_all(streams, num_frames, cut, from_end=True), num_frames, frame_format)


def _held_out(names: list[str], split: Split, root: Path) -> set[str]:
    if len(set(names)) < 2:
        raise ValueError(f"{root} holds {len(names)} recording of KITTI, wanted 2: one is held out for validation")
    val = hold_out_fixed(sorted(set(names)), 0.1)
    return val if split == "val" else set(names) - val


def _prepared(folder: Path) -> list[FrameStream]:
    """OpenSTL's arrays: all recordings in one, with the name of each frame's recording beside it."""
    file, sources_file = folder / _PREPARED, folder / "sources_train.hkl"
    key, shape = hickle_array(file)
    sources = hickle_strings(sources_file)
    if len(shape) != 4 or shape[3] != 3 or len(sources) != shape[0]:
        raise ValueError(f"{file} holds {shape} and {sources_file} {len(sources)} names, wanted (n, H, W, 3) and n")
    streams: list[FrameStream] = []
    first = 0
    for source, group in groupby(sources):
        count = len(list(group))
        stream = H5Stream(file, key, "thwc", shape, rows=(first, count))
        stream.name = source
        streams.append(stream)
        first += count
    return streams


def _caltech(folder: Path) -> list[Path]:
    sources = find_sources(folder)
    numbers = {source: re.search(r"set(\d\d)", source.relative_to(folder).as_posix()) for source in sources}
    if all(numbers.values()):
        sources = [source for source, match in numbers.items() if match and int(match[1]) in _TEST_SETS]
    if not sources:
        raise FileNotFoundError(f"{folder} holds none of the test sets, set06 to set10")
    return sources


def _at_least(num_frames: int) -> Callable[[Path], Sequence[FrameStream]]:
    def open_one(path: Path) -> Sequence[FrameStream]:
        # KITTI's images lie in image_03/data.
        data = path / "data"
        return long_enough(open_source(data if data.is_dir() else path, 3), num_frames)

    return open_one
