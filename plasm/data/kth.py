"""KTH: 25 persons who walk, jog, run, box, wave and clap, in gray (Schuldt, Laptev, Caputo, ICPR 2004).

The data set of Section IV-A of PLA-SM. ``prepare_kth`` decodes the original videos once, into one array on disk that
is mapped; ``kth`` cuts clips from it.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from plasm.files import read_json

from .clips import StreamClips, cut_windows, hold_out_fixed
from .datasets import register_dataset
from .frames import FrameFormat
from .mnist import Split
from .npy import ArrayStream, load_array
from .sources import OnError
from .video import VideoStream

SEQUENCES = "00sequences.txt"
# MCnet's lists of the frames in which the person is in view: those that the field's numbers are of.
_TRIMMED = (("train_data_list_trimmed.txt",), ("test_data_list_trimmed.txt", "test_data_list.txt"))
_SIZE = 128
_TEST_PERSONS = range(17, 26)
_FAST = ("jogging", "running")
_FAST_STRIDE = 3
_OFFICIAL = re.compile(r"(person\d\d_[a-z]+_d\d)\s+frames\s+(\d+\s*-\s*\d+(?:\s*,\s*\d+\s*-\s*\d+)*)\s*,?")
_MCNET = re.compile(r"(?:\S*/)?(person\d\d_[a-z]+_d\d)(?:_uncomp)?(?:\.avi)?\s+(\d+)\s+(\d+)")
_MISSING = re.compile(r"person\d\d_[a-z]+_d\d\s+\*missing\*")
Ranges = dict[str, list[tuple[int, int]]]


@dataclass(frozen=True)
class Segment:
    """Consecutive frames of a video, such as "person01_walking_d1", that are in the cache.

    ``first`` is the number of the first frame in the video, from 1 as in 00sequences.txt, ``position`` its position in
    the cache, and ``last`` the number of the last frame that was to be cached; the video may have ended before.
    """

    video: str
    first: int
    count: int
    position: int
    last: int

    @property
    def person(self) -> int:
        """Number of the person, 1 to 25."""
        return int(self.video[6:8])

    @property
    def action(self) -> str:
        """Such as "walking"."""
        return self.video.split("_")[1]


def read_sequences(*files: Path) -> Ranges:
    """Read the frame ranges of each video, from the official 00sequences.txt or lists in MCnet's format.

    Their lines are ``person01_boxing_d1 frames 1-95, 96-185`` or ``person01_boxing_d1 1 95``. Ranges that touch (1-95,
    96-185) or overlap (207-311, 212-456) are joined: the field's windows ask only that frames follow one another, and
    no frame counts twice.

    Returns:
        (first, last) of each range, both counted from 1 and both in it.

    Raises:
        FileNotFoundError: If one is not there.
        ValueError: If one lists no videos, a range that is none, or has a line on a video that cannot be read.
    """
    videos: Ranges = {}
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"there is no {file}; docs/data/kth.md says where such files come from")
        found = False
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            text = line.strip()
            if match := _OFFICIAL.fullmatch(text):
                ranges = [(int(a), int(b)) for a, b in re.findall(r"(\d+)\s*-\s*(\d+)", match[2])]
            elif match := _MCNET.fullmatch(text):
                ranges = [(int(match[2]), int(match[3]))]
            elif text.startswith("person") and not _MISSING.match(text):
                raise ValueError(f"{file} has a line that cannot be read: {text!r}")
            else:
                continue
            if wrong := [f"{first}-{last}" for first, last in ranges if not 1 <= first <= last]:
                raise ValueError(f"{file} gives {match[1]} the range {wrong[0]}")
            videos[match[1]], found = videos.get(match[1], []) + ranges, True
        if not found:
            raise ValueError(f"{file} lists no videos (lines such as person01_boxing_d1 frames 1-95, 96-185)")
    return {name: _join(ranges) for name, ranges in videos.items()}


def _join(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order, those that touch or overlap as one."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def _trimmed_lists(root: Path) -> list[Path]:
    """MCnet's two lists, as far as they lie in a folder."""
    found = [next((root / name for name in names if (root / name).is_file()), None) for names in _TRIMMED]
    return [file for file in found if file]


def _names(files: Iterable[Path]) -> str:
    return ", ".join(file.name for file in files)


def _asked_lists(root: Path, frames: str | Path | None) -> list[Path]:
    """The files that an option names, which may lie in the data's folder; or those found there."""
    if frames is None:
        return _trimmed_lists(root)
    names = [str(frames)] if Path(frames).is_file() else str(frames).split(",")
    return [Path(name) if Path(name).is_file() else root / name for name in map(str.strip, names)]


def _find_video(root: Path, name: str) -> Path | None:
    file = f"{name}_uncomp.avi"
    candidates = (root / name.split("_")[1] / file, root / file)
    return next((path for path in candidates if path.is_file()), None)


def _cache(root: Path, size: int) -> tuple[Path, Path]:
    return root / f"kth_{size}.npy", root / f"kth_{size}.json"


def prepare_kth(root: Path, size: int = _SIZE, on_error: OnError = "raise") -> Path:
    """Decode the videos into ``kth_128.npy``, uint8 (frames, 128, 128), which ``kth`` maps.

    Written beside and renamed at the end. A run that was stopped goes on with the video it stopped at.

    Args:
        root: Folder with 00sequences.txt or MCnet's lists, or both, and the six folders of videos, or all videos in it.
        size: Side of the frames.
        on_error: "raise" at a video that is missing or damaged, or "skip" it; both name it.

    Returns:
        The cache.

    Raises:
        FileNotFoundError: If there is no list of frames, or a video that is listed is not there.
        ValueError: If a video cannot be decoded, or a list is not what it should be.
        ImportError: If PyAV is not installed.
    """
    # The library alone does not install it.
    from tqdm import tqdm

    cache, index = _cache(root, size)
    if cache.is_file() and index.is_file():
        return cache
    # Without any, the error is of the official one.
    lists = [file for file in (root / SEQUENCES, *_trimmed_lists(root)) if file.is_file()] or [root / SEQUENCES]
    sequences = read_sequences(*lists)
    missing = [name for name in sequences if _find_video(root, name) is None]
    if missing and (on_error == "raise" or len(missing) == len(sequences)):
        raise FileNotFoundError(
            f"{len(missing)} of {len(sequences)} videos of {_names(lists)} are not in {root}: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}"
        )
    counts = {name: sum(last - first + 1 for first, last in sequences[name]) for name in sorted(sequences)}
    # As if all videos were there, so that a resumed run finds the same positions.
    total, positions = sum(counts.values()), dict(zip(counts, accumulate(counts.values(), initial=0), strict=False))
    part, journal = cache.with_suffix(".npy.part"), cache.with_suffix(".journal")
    done = _read_journal(journal) if part.is_file() else {}
    plan = {"plan": [size, total, {name: [list(each) for each in ranges] for name, ranges in sequences.items()}]}
    if done.pop("plan", None) != plan["plan"]:
        journal.write_text(json.dumps(plan) + "\n", encoding="utf-8")
        done = {}
    shape = (total, size, size)
    frames = np.lib.format.open_memmap(part, "r+" if done else "w+", dtype=np.uint8, shape=None if done else shape)
    frame_format = FrameFormat(1, (size, size), "stretch")
    failed: list[str] = []
    with journal.open("a", encoding="utf-8") as log:
        for name in tqdm(counts, desc="kth", unit="video", disable=None):
            file = _find_video(root, name)
            if name in done or file is None:
                continue
            try:
                segments = _decode(VideoStream(file), sequences[name], positions[name], frames, frame_format)
            except ValueError as error:
                if on_error == "raise":
                    raise ValueError(f"{error}. on_error=skip leaves such videos out") from error
                failed.append(str(error))
                continue
            frames.flush()
            done[name] = [[name, *segment] for segment in segments]
            log.write(json.dumps({name: done[name]}) + "\n")
            log.flush()
    if failed or missing:
        tqdm.write(f"left out {len(failed) + len(missing)} of {len(sequences)} videos: {'; '.join(failed + missing)}")
    if not done:
        raise ValueError(f"no video in {root} can be used")
    content = [asdict(Segment(*segment)) for name in sorted(done) for segment in done[name]]
    beside = index.with_suffix(".json.part")
    beside.write_text(json.dumps(content), encoding="utf-8")
    os.replace(beside, index)
    # Windows renames no file that is mapped.
    del frames
    os.replace(part, cache)
    journal.unlink()
    return cache


def _decode(
    video: VideoStream, ranges: Sequence[tuple[int, int]], position: int, frames: np.ndarray, frame_format: FrameFormat
) -> list[tuple[int, int, int, int]]:
    """Write the ranges of a video; first, count, position and last of each. Some official ranges end after it."""
    segments = []
    for first, last in ranges:
        count = min(last, video.num_frames) - first + 1
        if count > 0:
            pixels = frame_format(video.read(first - 1, count, gray=True), video.name)
            frames[position : position + count] = (pixels[:, 0] * 255).round().byte().numpy()
        segments.append((first, max(0, count), position, last))
        position += last - first + 1
    return segments


def _read_index(file: Path) -> list[Segment]:
    try:
        segments = [Segment(**entry) for entry in read_json(file)]
        if not all(re.fullmatch(r"person\d\d_\w+", s.video) for s in segments):
            raise TypeError
        if not all(isinstance(number, int) for s in segments for number in (s.first, s.count, s.position, s.last)):
            raise TypeError
        return segments
    except TypeError as error:
        raise ValueError(
            f"{file} is damaged: delete it and its .npy, and run `plasm data prepare kth` again"
        ) from error


def _read_journal(file: Path) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            entries |= json.loads(line)
        except (ValueError, TypeError, RecursionError):
            # The line that was being written when the run was stopped.
            break
    return entries


def _only(segments: Sequence[Segment], ranges: Ranges, what: str) -> list[Segment]:
    """The parts of cached segments that a list names; of videos that were left out when they were cached, none."""
    cached: dict[str, list[Segment]] = {}
    for segment in segments:
        cached.setdefault(segment.video, []).append(segment)
    parts = []
    for video in sorted(ranges.keys() & cached.keys()):
        for first, last in ranges[video]:
            inside = [s for s in cached[video] if s.first <= first and last <= s.last]
            if not inside:
                raise ValueError(
                    f"the cache has not all of the frames {first}-{last} of {video} that {what} names: put the list "
                    f"into the data's folder as {_TRIMMED[0][0]}, delete kth_*.npy and kth_*.json, and prepare it anew"
                )
            skipped = first - inside[0].first
            count = min(last - first + 1, inside[0].count - skipped)
            if count > 0:
                parts.append(Segment(video, first, count, inside[0].position + skipped, last))
    return parts


@register_dataset("kth", published={"train": 5_200, "test": 3_167}, published_frames=(30,))
def kth(
    root: Path,
    split: Split,
    *,
    num_frames: int,
    size: int = _SIZE,
    stride: int | None = None,
    frames: str | Path | None = None,
) -> StreamClips:
    """KTH: (T + T', 1, 128, 128), persons 1 to 16 for training and 17 to 25 for testing.

    Windows are cut as the field cuts them (since PredRNN): from the end of each run of consecutive frames backwards,
    one after the other, but every 3 frames in jogging and running, whose runs are short. Of the persons for training
    a tenth, at least one, is held out for validation.

    Args:
        root: Folder with what ``plasm data prepare kth`` has made.
        split: "train", "val" or "test".
        num_frames: T + T'.
        size: Side of the frames in the cache.
        stride: Frames from one window's first to the next one's, for all actions alike; by default the field's.
        frames: List of the frames to use, or several with commas between, in the format of 00sequences.txt or of
            MCnet's lists; by default MCnet's, if they lie in the folder, or else all that the cache has.

    Raises:
        FileNotFoundError: If there is no cache, or no such list.
        ValueError: If no run of frames is long enough, or the cache lacks frames of the list.
    """
    cache, index = _cache(root, size)
    if not cache.is_file() or not index.is_file():
        raise FileNotFoundError(f"{root} holds no {cache.name}; make it: plasm data prepare kth --data-dir {root}")
    segments = _read_index(index)
    if lists := _asked_lists(root, frames):
        segments = _only(segments, read_sequences(*lists), _names(lists))
    persons = {segment.person for segment in segments}
    train = {str(person) for person in persons if person not in _TEST_PERSONS}
    val = {int(person) for person in hold_out_fixed(sorted(train), 0.1)} if len(train) > 1 else set()
    chosen = {
        "train": persons - val - set(_TEST_PERSONS), "val": val, "test": persons & set(_TEST_PERSONS)
    }[split]  # fmt: skip
    if not chosen:
        where = f"{cache}, as far as {_names(lists)} goes," if lists else str(cache)
        raise ValueError(f"{where} holds persons {sorted(persons)}, none of them for {split}")
    segments = [segment for segment in segments if segment.person in chosen and segment.count >= num_frames]
    shape = load_array(cache).shape
    streams = [ArrayStream(cache, None, "thw", shape, rows=(each.position, each.count)) for each in segments]
    windows = [
        (number, start)
        for number, segment in enumerate(segments)
        for start in cut_windows(
            segment.count,
            num_frames,
            (_FAST_STRIDE if segment.action in _FAST else num_frames) if stride is None else stride,
            from_end=True,
        )
    ]
    return StreamClips(streams, windows, num_frames, FrameFormat(1))
