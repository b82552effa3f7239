from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from video_files import dates, write_taxibj, write_year

from plasm.data import create_dataset
from plasm.data.datasets import count_clips
from plasm.data.taxibj import complete_days


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_taxibj(tmp_path)
    return tmp_path


def test_splits_scaling_and_gaps(root: Path) -> None:
    # 2 + 5 + 34 days before the test set's 28; clips of 8 half hours do not reach over a gap.
    counts = count_clips("taxibj", root, num_frames=8, val_days=4)
    train = (2 * 48 - 7) + (5 * 48 - 7) + (30 * 48 - 7)
    assert counts == {"train": (train, 19_627), "val": (4 * 48 - 7, None), "test": (28 * 48 - 7, 1_334)}
    high = 39 * 48 - 1  # the greatest flow before the test set
    clips = create_dataset("taxibj", root, "train", num_frames=8, val_days=4)
    assert clips[0].shape == (8, 2, 32, 32)
    assert clips[0].dtype == torch.float32
    torch.testing.assert_close(
        clips[3][:, :, 5, 6], torch.stack([torch.arange(3, 11), torch.arange(3, 11) / 2], 1) / high
    )
    test = create_dataset("taxibj", root, "test", num_frames=8, val_days=4)
    torch.testing.assert_close(test[0][0, 0, 0, 0], torch.tensor(3000 / high))  # above 1: it is not clipped
    loader = DataLoader(test, 8, num_workers=2)
    assert torch.equal(next(iter(loader))[1], test[1])
    val = create_dataset("taxibj", root, "val", num_frames=8, val_days=4)
    torch.testing.assert_close(val[len(val) - 1][-1].max(), torch.tensor(1.0))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("file", "row", "split"), [("BJ14", 500, "train"), ("BJ14", 500, "test"), ("BJ16", 9, "test")])
def test_a_flow_that_is_not_finite_is_refused(root: Path, file: str, row: int, split: str, value: float) -> None:
    with h5py.File(root / f"{file}_M32x32_T30_InOut.h5", "r+") as content:
        content["data"][row, 1, 4, 5] = value
    with pytest.raises(ValueError, match=rf"{file}.*\.h5 .*not finite in row {row},"):
        # What the flows are scaled by comes of all days before the test set.
        create_dataset("taxibj", root, split, num_frames=8, val_days=4)[9]  # type: ignore[arg-type]


def test_complete_days() -> None:
    rows = dates("2013-01-01", 3)
    assert complete_days(rows) == [("20130101", 0), ("20130102", 48), ("20130103", 96)]
    assert complete_days(rows[1:-1]) == [("20130102", 47)]
    assert complete_days(rows[:70] + rows[71:]) == [("20130101", 0), ("20130103", 95)]
    with pytest.raises(ValueError, match="'2013-01-01' is not a date"):
        complete_days(["2013-01-01"])


def write_prepared(file: Path, train: int = 60, test: int = 5, **changes: np.ndarray) -> dict[str, np.ndarray]:
    numbers = np.random.default_rng(0)
    arrays = {
        f"{letter}_{part}": numbers.uniform(-1, 1, (count, 4, 2, 32, 32)).astype(np.float32)
        for letter in "XY"
        for part, count in (("train", train), ("test", test))
    }
    np.savez(file, **{**arrays, **changes})
    return arrays


def test_openstls_file(tmp_path: Path) -> None:
    arrays = write_prepared(tmp_path / "dataset.npz")
    counts = count_clips("taxibj", tmp_path, num_frames=8, val_days=1)
    # 7 clips between training and validation share frames with both.
    assert [counts[split][0] for split in ("train", "val", "test")] == [60 - 48 - 7, 48, 5]
    test = create_dataset("taxibj", tmp_path, "test", num_frames=8)
    expected = (np.concatenate([arrays["X_test"][2], arrays["Y_test"][2]]) + 1) / 2
    np.testing.assert_allclose(test[2].numpy(), expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"4 \+ 4 frames, too few for 20"):
        create_dataset("taxibj", tmp_path, "test", num_frames=20)
    with pytest.raises(ValueError, match="60 training clips, too few"):
        create_dataset("taxibj", tmp_path, "val", num_frames=8)
    broken = arrays["Y_test"].copy()
    broken[3, 1, 0, 2, 2] = np.nan
    write_prepared(tmp_path / "dataset.npz", Y_test=broken)
    damaged = create_dataset("taxibj", tmp_path, "test", num_frames=8)
    assert damaged[2].isfinite().all()
    with pytest.raises(ValueError, match=r"Y_test of .*dataset\.npz .*not finite in row 3,"):
        damaged[3]
    write_prepared(tmp_path / "dataset.npz", X_test=np.zeros((5, 4, 2, 16, 16)))
    with pytest.raises(ValueError, match=r"wanted \(n, T, 2, 32, 32\)"):
        create_dataset("taxibj", tmp_path, "test", num_frames=8)
    np.savez_compressed(tmp_path / "dataset.npz", **arrays)
    with pytest.raises(ValueError, match=r"is compressed .* write it anew"):
        create_dataset("taxibj", tmp_path, "test", num_frames=8)
    np.savez(tmp_path / "dataset.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="not OpenSTL's"):
        create_dataset("taxibj", tmp_path, "test", num_frames=8)


def test_errors_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"BJ\*_M32x32_T30_InOut\.h5 and no dataset\.npz"):
        create_dataset("taxibj", tmp_path, "train")
    file = tmp_path / "BJ13_M32x32_T30_InOut.h5"
    write_year(file, dates("2013-01-01", 3))
    with pytest.raises(ValueError, match="3 complete days, too few"):
        create_dataset("taxibj", tmp_path, "train")
    content = file.read_bytes()
    file.write_bytes(content[:1000])
    with pytest.raises(ValueError, match=r"BJ13.* is not a whole HDF5 file"):
        create_dataset("taxibj", tmp_path, "train")
    with h5py.File(file, "w") as other:
        other["data"] = np.zeros((4, 2, 32, 32))
    with pytest.raises(ValueError, match="holds no date"):
        create_dataset("taxibj", tmp_path, "train")
