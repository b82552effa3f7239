import gzip
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from plasm.data import SAMPLES, load_digits
from plasm.data.mnist import read_idx_images


def idx(count: int, height: int = 28, width: int = 28, magic: int = 2051) -> bytes:
    pixels = bytes(i % 256 for i in range(count * height * width))
    return struct.pack(">4i", magic, count, height, width) + pixels


def test_splits_of_the_whole_set(mnist_root: Path) -> None:
    train, val, test = (load_digits(mnist_root, split) for split in ("train", "val", "test"))  # type: ignore[arg-type]
    assert (len(train), len(val), len(test)) == (55_000, 5_000, 10_000)
    samples = load_digits(SAMPLES, "test")
    assert torch.equal(samples, test[: len(samples)])


def test_splits_share_no_digit_of_the_samples(sample_root: Path) -> None:
    train, val = load_digits(sample_root, "train"), load_digits(sample_root, "val")
    assert (len(train), len(val)) == (880, 80)
    assert len(torch.cat([train, val]).flatten(1).unique(dim=0)) == 960


def test_samples_are_small() -> None:
    assert sum(file.stat().st_size for file in SAMPLES.iterdir()) < 400_000


@pytest.mark.parametrize("folder", [".", "MNIST/raw"])
@pytest.mark.parametrize("zipped", [True, False])
def test_plain_and_gzipped_files_and_torchvisions_layout(tmp_path: Path, folder: str, zipped: bool) -> None:
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    name = "t10k-images-idx3-ubyte" + (".gz" if zipped else "")
    (tmp_path / folder / name).write_bytes(gzip.compress(idx(3)) if zipped else idx(3))
    digits = load_digits(tmp_path, "test")
    assert digits.shape == (3, 28, 28)
    assert digits[0, 0, :4].tolist() == [0, 1, 2, 3]


def test_missing_files_are_downloaded_by_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    def download(root: str, download: bool) -> None:
        raw = Path(root) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        shutil.copy(SAMPLES / "t10k-images-idx3-ubyte.gz", raw)

    monkeypatch.setattr(torchvision.datasets, "MNIST", download)
    assert load_digits(tmp_path, "test").shape == (400, 28, 28)


def test_a_wrong_folder_does_not_begin_with_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    def download(*args: Any, **kwargs: Any) -> None:
        pytest.fail("a download began")

    monkeypatch.setattr(torchvision.datasets, "MNIST", download)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*mnits.*mkdir .*mnits"):
        load_digits(tmp_path / "mnits", "train")
    assert not (tmp_path / "mnits").exists()
    (tmp_path / "holiday.mp4").touch()
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(3)))
    with pytest.raises(FileNotFoundError, match=r"no train-images-idx3-ubyte\[.gz\], but holiday.mp4: .*an empty one"):
        load_digits(tmp_path, "train")


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    def download(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr(torchvision.datasets, "MNIST", download)
    with pytest.raises(FileNotFoundError, match=r"no network.*by hand"):
        load_digits(tmp_path, "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(3)[:-1], "not an IDX file of images"),
        (idx(3, magic=2049), "magic 2049"),
        (b"abc", "too short"),
        (idx(3, 27, 27), "27x27, wanted 28x28"),
    ],
)
def test_damaged_files_are_errors(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_digits(tmp_path, "test")


def test_a_cut_gzip_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(idx(3))[:-20])
    with pytest.raises(ValueError, match="whole gzip"):
        read_idx_images(file)


@pytest.mark.parametrize("place", range(12, 200, 17))
def test_a_damaged_gzip_file_is_an_error(tmp_path: Path, place: int) -> None:
    content = bytearray((SAMPLES / "t10k-images-idx3-ubyte.gz").read_bytes())
    content[place] ^= 0xFF
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte\.gz"):
        load_digits(tmp_path, "test")


def test_an_unknown_split_is_an_error() -> None:
    with pytest.raises(ValueError, match="train, val, test"):
        load_digits(SAMPLES, "valid")  # type: ignore[arg-type]


def test_too_few_digits_to_hold_some_out(tmp_path: Path) -> None:
    """A twelfth of eleven is none, and none at the end of a list is all of it."""
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(11))
    for split in ("train", "val"):
        with pytest.raises(ValueError, match="has 11 training digits, wanted 12 at least"):
            load_digits(tmp_path, split)  # type: ignore[arg-type]
