"""Data sets by name."""

from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from .mnist import Split, load_digits
from .moving_mnist import ClipArray, MovingMNIST

__all__ = ["create_dataset", "list_datasets"]

_PUBLIC_TEST_FILE = "mnist_test_seq.npy"


def _mmnist(root: Path, split: Split, num_clips: int, num_frames: int, seed: int) -> Dataset[Tensor]:
    # Evaluation clips never depend on the run.
    return MovingMNIST(load_digits(root, split), split, num_clips, num_frames, seed if split == "train" else 0)


def _mmnist_public(root: Path, split: Split, num_clips: int, num_frames: int, seed: int) -> Dataset[Tensor]:
    """The public test file for testing; clips made from the digits for all else, as its users do."""
    if split != "test":
        return _mmnist(root, split, num_clips, num_frames, seed)
    file = root / _PUBLIC_TEST_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"{root} holds no {_PUBLIC_TEST_FILE}; get it from https://www.cs.toronto.edu/~nitish/unsupervised_video/"
        )
    return ClipArray(file, frames_first=True)


_DATASETS = {"mmnist": _mmnist, "mmnist_public": _mmnist_public}


def list_datasets() -> list[str]:
    """Names for ``create_dataset``."""
    return sorted(_DATASETS)


def create_dataset(
    name: str,
    root: Path,
    split: Split,
    *,
    num_clips: int = 10_000,
    num_frames: int = 20,
    seed: int = 0,
) -> Dataset[Tensor]:
    """Make a data set of clips, (num_frames, C, H, W) each.

    Args:
        name: See ``list_datasets``.
        root: Folder with its files.
        split: "train", "val" or "test".
        num_clips: Clips an epoch, for data sets that are made rather than read.
        num_frames: T + T'.
        seed: Of the training clips; evaluation clips are always the same.

    Raises:
        ValueError: If there is no such data set or split.
        FileNotFoundError: If the files are not there.
    """
    if name not in _DATASETS:
        raise ValueError(f"no data set is called {name!r}; there are: {', '.join(list_datasets())}")
    return _DATASETS[name](Path(root), split, num_clips, num_frames, seed)
