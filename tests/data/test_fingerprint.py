import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plasm.data import SAMPLES, create_dataset, fingerprint


def write(root: Path, count: int = 4) -> Path:
    for split in ("train", "test"):
        (root / split).mkdir(parents=True)
        for number in range(count):
            frames = np.random.default_rng(number).integers(0, 255, (9, 80, 80), np.uint8)
            np.save(root / split / f"{number}.npy", frames)
    return root


def seen(root: Path, **options: Any) -> dict[str, Any]:
    return fingerprint(create_dataset("clips", root, "train", num_frames=3, channels=1, **options), root)


def change(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


CHANGES: dict[str, Callable[[Path], Any]] = {
    "a frame at the start": lambda root: change(root / "train" / "3.npy", 200),
    "a frame at the end": lambda root: change(root / "train" / "3.npy", -1),
    "a name": lambda root: (root / "train" / "3.npy").rename(root / "train" / "33.npy"),
    "two that change places": lambda root: [
        (root / "train" / old).rename(root / "train" / new)
        for old, new in (("3.npy", "x"), ("2.npy", "3.npy"), ("x", "2.npy"))
    ],
    "a file more": lambda root: np.save(root / "train" / "9.npy", np.zeros((9, 80, 80), np.uint8)),
    "a file less": lambda root: (root / "train" / "3.npy").unlink(),
    "a file that becomes longer": lambda root: np.save(root / "train" / "3.npy", np.zeros((10, 80, 80), np.uint8)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_it_changes_with_the_files(name: str, tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    (root / "val").mkdir()
    np.save(root / "val" / "0.npy", np.zeros((9, 80, 80), np.uint8))
    before = seen(root)
    CHANGES[name](root)
    assert seen(root) != before


def test_it_stays_where_files_are_moved_touched_or_are_of_others(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    before = seen(root)
    assert before["clips"] == 3 * before["files"] > 0
    os.utime(root / "train" / "0.npy", (1, 1))
    (root / "notes.txt").write_text("not of the data set")
    change(root / "test" / "1.npy", 200)
    assert seen(root.rename(tmp_path / "moved")) == before
    assert seen(tmp_path / "moved", stride=1) != before


def test_of_many_files_all_sizes_and_names_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["plasm.data.fingerprint"], "_OPENED", 2)
    root = write(tmp_path, 5)
    before = seen(root, val_share=0.01)
    with (root / "train" / "4.npy").open("ab") as file:
        file.write(b"more")
    assert seen(root, val_share=0.01) != before


def test_digits_count_though_they_are_in_memory(tmp_path: Path) -> None:
    told: dict[str, Any] = {"num_clips": 8}
    before = fingerprint(create_dataset("mmnist", SAMPLES, "train", **told), SAMPLES)
    assert before == fingerprint(create_dataset("mmnist", SAMPLES, "train", **told), SAMPLES)
    digits = create_dataset("mmnist", SAMPLES, "train", **told)
    digits.digits = digits.digits.flip(0)  # type: ignore[attr-defined]
    assert fingerprint(digits, SAMPLES) != before


def test_a_users_data_set_may_name_its_files(tmp_path: Path) -> None:
    class Own(torch.utils.data.Dataset[torch.Tensor]):
        def __init__(self, files: Any) -> None:
            self.files = files

        def __len__(self) -> int:
            return 3

    (tmp_path / "a").write_text("a")
    one = fingerprint(Own([str(tmp_path / "a")]), tmp_path)
    assert one["files"] == 1
    (tmp_path / "a").write_text("b")
    assert fingerprint(Own([tmp_path / "a"]), tmp_path)["sha256"] != one["sha256"]
    # What is called so, and is none.
    for other in (None, 3, "text", [1, 2], torch.zeros(2)):
        assert fingerprint(Own(other), tmp_path)["files"] == 0
