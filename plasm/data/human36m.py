"""Human3.6M: people who walk, seen by four cameras (Ionescu, Papava, Olaru, Sminchisescu, TPAMI 2014).

The data set of Section IV-A of PLA-SM: the walking scene in colour, every fifth frame, 4 + 4 frames.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from .clips import StreamClips, cut_all, hold_out_fixed
from .datasets import register_dataset
from .frames import FrameFormat
from .mnist import Split
from .naming import natural_key
from .sources import OnError, find_images, find_videos, image_streams, long_enough, open_sources
from .streams import FrameStream, ImageStream
from .video import VideoStream

_TRAIN, _TEST = (1, 5, 6, 7, 8), (9, 11)
_STEP = 5
_NUMBERED = re.compile(r"^(.*?)(\d+)\.[a-zA-Z]+$")
_SUBJECT = re.compile(r"(?:^|[/_])S(\d+)(?=[/_])")
_SCENE = "walking"


@register_dataset("human36m", published={"train": 2_624, "test": 1_135}, published_frames=(8,))
def human36m(
    root: Path,
    split: Split,
    *,
    num_frames: int,
    size: int = 128,
    step: int = _STEP,
    stride: int | None = None,
    on_error: OnError = "raise",
) -> StreamClips:
    """Human3.6M, walking: (T + T', 3, 128, 128), subjects 1, 5, 6, 7, 8 for training and 9, 11 for testing.

    Of the training recordings a tenth, at least one, is held out for validation.

    Args:
        root: Folder of one of two layouts. OpenSTL's: ``images/S1_Walking.54138969_000001.jpg`` and, if they are
            there, the lists ``train.txt`` and ``test.txt``, whose lines (images/S1_Walking.54138969_,1) name each
            clip's images and first number. Or plain videos, anywhere below: ``S1/Videos/Walking.54138969.mp4``.
        split: "train", "val" or "test".
        num_frames: T + T'.
        size: Side of the frames.
        step: Frames from one of a clip to its next.
        stride: Frames from the first of a clip to that of the next, where no list says; by default clips do not
            overlap.
        on_error: "raise" if a recording cannot be used, or "skip" it; both say how many and which.

    Raises:
        FileNotFoundError: If neither layout is there, or images of a list are not.
        ValueError: If recordings cannot be read, or none is of the split.
    """
    if step < 1:
        raise ValueError(f"step is at least 1, got {step}")
    span = (num_frames - 1) * step + 1
    images = _numbered(find_images(root))
    listed = root / ("test.txt" if split == "test" else "train.txt")
    recordings: dict[str, Path | list[Path]] = {}
    starts: dict[str, list[int]] = {}
    if images and listed.is_file():
        starts = _read_list(listed, root, images, num_frames, step)
        recordings = {prefix: [path for _, path in images[prefix]] for prefix in starts}
    elif images:
        recordings = {prefix: [path for _, path in numbered] for prefix, numbered in images.items()}
    else:
        recordings = {str(video): video for video in find_videos(root)}
    if not recordings:
        raise FileNotFoundError(f"{root} holds no images and no videos of Human3.6M; see docs/data/human36m.md")
    names = _of_split(recordings, root, split, check_subject=not starts)

    def open_one(name: Path) -> Sequence[FrameStream]:
        content = recordings[str(name)]
        if isinstance(content, Path):
            return long_enough([VideoStream(content)], span)
        # Where a list names the clips, it counts images.
        return long_enough([ImageStream(content, str(name))] if starts else image_streams(content, str(name)), span)

    streams = open_sources(map(Path, names), open_one, on_error)
    windows: Sequence[tuple[int, int]] | np.ndarray
    if starts:
        windows = [(number, start) for number, stream in enumerate(streams) for start in starts[stream.name]]
    else:
        windows = cut_all(streams, span, num_frames * step if stride is None else stride)
    return StreamClips(streams, windows, num_frames, FrameFormat(3, (size, size), "stretch"), step)


def _numbered(files: Iterable[Path]) -> dict[str, list[tuple[int, Path]]]:
    """Images by what their names have before the number, in its order."""
    groups: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for file in files:
        if match := _NUMBERED.match(str(file)):
            groups[match[1]].append((int(match[2]), file))
    return {prefix: sorted(numbered) for prefix, numbered in sorted(groups.items())}


def _read_list(
    file: Path, root: Path, images: dict[str, list[tuple[int, Path]]], num_frames: int, step: int
) -> dict[str, list[int]]:
    """First indices of the clips that a list names, by the prefix of their images."""
    starts: dict[str, list[int]] = defaultdict(list)
    positions = {prefix: {number: i for i, (number, _) in enumerate(numbered)} for prefix, numbered in images.items()}
    for line in filter(str.strip, file.read_text(encoding="utf-8").splitlines()):
        name, _, first = line.partition(",")
        number = first.split(",")[0].strip()
        if not number.isdecimal():
            raise ValueError(f"{file} should hold lines such as images/S1_Walking.54138969_,1; it holds {line!r}")
        prefix = str(root / name.strip())
        known = positions.get(prefix, {})
        wanted = [int(number) + index * step for index in range(num_frames)]
        if missing := [each for each in wanted if each not in known]:
            raise FileNotFoundError(f"{file} names {name} {missing[0]}, and there is no such image in {root}")
        if known[wanted[-1]] - known[wanted[0]] != wanted[-1] - wanted[0]:
            raise FileNotFoundError(f"images are missing between {name}{wanted[0]} and {wanted[-1]}")
        starts[prefix].append(known[wanted[0]])
    return starts


def _of_split(names: Iterable[str], root: Path, split: Split, check_subject: bool) -> list[str]:
    """The recordings of a split: by subject, or all that a list names; a part of those for training is held out."""
    chosen = []
    for name in names:
        relative = Path(name).relative_to(root).as_posix()
        subject = _SUBJECT.search(relative)
        subjects = _TEST if split == "test" else _TRAIN
        if not check_subject or (subject and int(subject[1]) in subjects and _SCENE in relative.lower()):
            chosen.append((relative, name))
    if not chosen:
        raise ValueError(
            f"{root} holds no recording of the walking scene and the subjects for {split} (S9_Walking..., "
            f"S9/.../Walking...)"
        )
    if split == "test":
        return [name for _, name in sorted(chosen, key=lambda item: natural_key(item[0]))]
    if len(chosen) < 2:
        raise ValueError(f"{root} holds {len(chosen)} recording for training and validation, wanted at least 2")
    held_out = hold_out_fixed([relative for relative, _ in chosen], 0.1)
    return [name for relative, name in chosen if (relative in held_out) == (split == "val")]
