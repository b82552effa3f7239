"""TaxiBJ: taxis that flow into and out of 32x32 regions of Beijing, every half hour (Zhang, Zheng, Qi, AAAI 2017).

The data set of Section IV-A of PLA-SM, read from the four HDF5 files of its authors, or from the ``dataset.npz`` that
OpenSTL prepares.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .clips import StreamClips, cut_all
from .datasets import register_dataset
from .frames import FrameFormat
from .h5 import H5Stream, h5_dataset, h5_values, open_h5
from .layouts import check_finite
from .mnist import Split
from .npy import load_array

_PATTERN = "BJ*_M32x32_T30_InOut.h5"
_PREPARED = "dataset.npz"
_SLOTS = 48
_TEST_DAYS = _VAL_DAYS = 28


def complete_days(dates: Sequence[bytes | str]) -> list[tuple[str, int]]:
    """(YYYYMMDD, row of its first half hour) of the days with all 48 half hours in order.

    Dates are YYYYMMDDSS with SS from 01 to 48; a ValueError of any other.
    """
    texts = [date.decode() if isinstance(date, bytes) else str(date) for date in dates]
    if wrong := next((text for text in texts if len(text) != 10 or not (text.isascii() and text.isdecimal())), None):
        raise ValueError(f"{wrong!r} is not a date YYYYMMDDSS")
    slots = [f"{slot:02d}" for slot in range(1, _SLOTS + 1)]
    return [
        (texts[row][:8], row)
        for row in range(len(texts) - _SLOTS + 1)
        if texts[row][8:] == "01" and texts[row : row + _SLOTS] == [texts[row][:8] + slot for slot in slots]
    ]


def _read_days(files: Sequence[Path]) -> list[tuple[Path, str, int]]:
    days = []
    for file in files:
        with open_h5(file) as content:
            if missing := {"data", "date"} - set(content):
                raise ValueError(f"{file} holds no {' and no '.join(sorted(missing))}; it is not a file of TaxiBJ")
            shape, dates = (h5_dataset(content, key, file).shape for key in ("data", "date"))
            if shape[1:] != (2, 32, 32) or dates != shape[:1]:
                raise ValueError(f"{file} holds {shape} and dates of {dates}, wanted (n, 2, 32, 32) and (n,)")
            dates = h5_values(content, "date", file)
            days += [(file, day, row) for day, row in complete_days(dates.tolist())]
    # The names sort by year; so do the days, but for what a user may have renamed.
    return sorted(days, key=lambda day: day[1])


def _extremes(days: Sequence[tuple[Path, str, int]]) -> tuple[float, float]:
    """Least and greatest flow, a day in memory at a time."""
    low, high = np.inf, -np.inf
    for file in dict.fromkeys(file for file, _, _ in days):
        with open_h5(file) as content:
            for _, _, row in (day for day in days if day[0] == file):
                rows = h5_dataset(content, "data", file)[row : row + _SLOTS]
                check_finite(rows, str(file), row)
                low, high = min(low, float(rows.min())), max(high, float(rows.max()))
    return low, high


def _runs(days: Sequence[tuple[Path, str, int]]) -> list[tuple[Path, int, int]]:
    """(file, first row, rows) of days that follow one another without a gap."""
    runs: list[tuple[Path, int, int]] = []
    for index, (file, day, row) in enumerate(days):
        date, before = (datetime.strptime(each, "%Y%m%d") for each in (day, days[max(0, index - 1)][1]))
        if date - before == timedelta(1) and runs[-1][0] == file and runs[-1][1] + runs[-1][2] == row:
            runs[-1] = (file, runs[-1][1], runs[-1][2] + _SLOTS)
        else:
            runs.append((file, row, _SLOTS))
    return runs


def _stream(file: Path, row: int, rows: int) -> H5Stream:
    with open_h5(file) as content:
        shape = h5_dataset(content, "data", file).shape
    return H5Stream(file, "data", "tchw", shape, rows=(row, rows))


@register_dataset("taxibj", published={"train": 19_627, "test": 1_334}, published_frames=(8,))
def taxibj(root: Path, split: Split, *, num_frames: int, val_days: int = _VAL_DAYS) -> Dataset[Tensor]:
    """TaxiBJ: (T + T', 2, 32, 32), flow into and out of each region.

    Incomplete days are removed; the last 28 complete days are the test set, and the 28 (``val_days``) before them
    validation. Flows are scaled by the least and the greatest of all days before the test set, as ST-ResNet does, so
    that a flow of the test set may come out above 1. Clips start at every half hour, and none reaches over a gap or
    from one split into another.

    Args:
        root: Folder with the four ``BJ13_M32x32_T30_InOut.h5`` to ``BJ16_...``, or with OpenSTL's ``dataset.npz``.
        split: "train", "val" or "test".
        num_frames: T + T'.
        val_days: Days for validation; of ``dataset.npz``, whose clips have no dates, as many half hours.

    Raises:
        FileNotFoundError: If neither is there.
        ValueError: If a file is not what it should be, or there are too few days.
    """
    if val_days < 1:
        raise ValueError(f"val_days is at least 1, got {val_days}")
    if (root / _PREPARED).is_file():
        return PreparedTaxiBJ(root / _PREPARED, split, num_frames, val_days * _SLOTS)
    files = sorted(root.glob(_PATTERN))
    if not files:
        raise FileNotFoundError(f"{root} holds no {_PATTERN} and no {_PREPARED}; see docs/data/taxibj.md")
    days = _read_days(files)
    if len(days) <= _TEST_DAYS + val_days:
        raise ValueError(
            f"{root} holds {len(days)} complete days, too few for {_TEST_DAYS} of testing, {val_days} of validation "
            f"and some of training"
        )
    low, high = _extremes(days[:-_TEST_DAYS])
    if not low < high:
        raise ValueError(f"all flows in {root} are {low}")
    parts = {
        "train": days[: -_TEST_DAYS - val_days],
        "val": days[-_TEST_DAYS - val_days : -_TEST_DAYS],
        "test": days[-_TEST_DAYS:],
    }
    streams = [_stream(*run) for run in _runs(parts[split])]
    frame_format = FrameFormat(2, bounded=False, value_range=(low, high))
    return StreamClips(streams, cut_all(streams, num_frames, 1), num_frames, frame_format)


class PreparedTaxiBJ(Dataset[Tensor]):
    """OpenSTL's ``dataset.npz``: ``X_train``, ``Y_train``, ``X_test``, ``Y_test`` of (n, 4, 2, 32, 32) in [-1, 1].

    Validation takes so many clips from the end of the training clips; between the two, clips that share frames are left
    out. A ValueError if the file holds other arrays, or compressed ones, which cannot be mapped.
    """

    def __init__(self, file: Path, split: Split, num_frames: int, val_clips: int) -> None:
        part = "test" if split == "test" else "train"
        try:
            arrays = [load_array(file, f"{letter}_{part}") for letter in "XY"]
        except ValueError as error:
            raise ValueError(f"{file} is not OpenSTL's dataset.npz: {error}") from error
        if not all(isinstance(array, np.memmap) for array in arrays):
            raise ValueError(
                f"{file} is compressed and would have to be loaded whole; write it anew: "
                f"python -c \"import numpy as n; n.savez('new.npz', **n.load('{file}'))\""
            )
        first, second = (array.shape for array in arrays)
        if first[2:] != (2, 32, 32) or second[2:] != first[2:] or first[0] != second[0]:
            raise ValueError(f"{file} holds arrays of {first} and {second}, wanted (n, T, 2, 32, 32)")
        if num_frames > first[1] + second[1]:
            raise ValueError(f"{file} has clips of {first[1]} + {second[1]} frames, too few for {num_frames}")
        self.file, self.part, self.num_frames = file, part, num_frames
        end = first[0]
        gap = first[1] + second[1] - 1
        self.range = {
            "train": range(end - val_clips - gap), "val": range(end - val_clips, end), "test": range(end)
        }[split]  # fmt: skip
        if not self.range or self.range[0] < 0:
            raise ValueError(f"{file} has {end} training clips, too few to take {val_clips} for validation")

    def __len__(self) -> int:
        return len(self.range)

    def __getitem__(self, index: int) -> Tensor:
        row = self.range[index]
        halves = {name: load_array(self.file, name)[row] for name in (f"X_{self.part}", f"Y_{self.part}")}
        for name, half in halves.items():
            check_finite(half[None], f"{name} of {self.file}", row)
        clip = np.concatenate(list(halves.values()))
        # ST-ResNet's range to that of pixels.
        return (torch.from_numpy(clip[: self.num_frames].astype(np.float32)) + 1) / 2
