"""The MNIST digits that Moving MNIST is made of.

Digits: Y. LeCun, C. Cortes, C. J. C. Burges, CC BY-SA 3.0.
"""

import gzip
import re
import struct
import zlib
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

Split = Literal["train", "val", "test"]

SAMPLES = Path(__file__).parent / "samples"
"""Folder inside the package with a small subset of the digits, in the layout of the whole set."""

_FILES = {"train": "train-images-idx3-ubyte", "val": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
_MAGIC = 2051
# What may lie where MNIST is downloaded to: parts of it, the public test file, hidden files.
_OWN = re.compile(r"MNIST$|mnist_test_seq|t10k-|train-|\.")


def read_idx_images(file: Path) -> Tensor:
    """Read an IDX file of images, gzipped if its name ends in .gz: uint8, (n, height, width).

    Raises:
        ValueError: If the file is not a whole IDX file of images.
    """
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{file} is not a whole gzip file: {error}") from error
    if len(content) < 16:
        raise ValueError(f"{file} is too short for an IDX file: {len(content)} bytes")
    magic, count, height, width = struct.unpack(">4i", content[:16])
    if magic != _MAGIC or len(content) != 16 + count * height * width:
        raise ValueError(
            f"{file} is not an IDX file of images: magic {magic} (wanted {_MAGIC}), {len(content)} bytes for "
            f"{count} images of {height}x{width}"
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=16).view(count, height, width)


def load_digits(root: Path, split: Split) -> Tensor:
    """Load the digits of a split: the training file without its last twelfth, that twelfth, or the t10k file.

    Args:
        root: Folder with the MNIST image files, gzipped or not, or with torchvision's ``MNIST/raw`` below it. Into an
            empty one torchvision downloads them.
        split: "train", "val" (held out of the training file: nothing is chosen on the test digits) or "test".

    Returns:
        uint8, (n, 28, 28).

    Raises:
        FileNotFoundError: If the files are neither there nor can be downloaded.
        ValueError: If ``split`` is unknown or a file is damaged.
    """
    if split not in _FILES:
        raise ValueError(f"split is one of {', '.join(_FILES)}, got {split!r}")
    digits = read_idx_images(_find(root, _FILES[split]) or _download(root, _FILES[split]))
    if digits.shape[1:] != (28, 28):
        raise ValueError(f"digits in {root} are {digits.shape[1]}x{digits.shape[2]}, wanted 28x28")
    if split == "test":
        return digits
    if (held_out := len(digits) // 12) < 1:
        raise ValueError(f"{root} has {len(digits)} training digits, wanted 12 at least: a twelfth is for validation")
    return digits[:-held_out] if split == "train" else digits[-held_out:]


def _find(root: Path, name: str) -> Path | None:
    folders = (root, root / "MNIST" / "raw")
    candidates = (folder / (name + suffix) for folder in folders for suffix in ("", ".gz"))
    return next((file for file in candidates if file.is_file()), None)


def _download(root: Path, name: str) -> Path:
    # A name that was mistyped is no reason to fetch what lies elsewhere.
    if not root.is_dir():
        raise FileNotFoundError(
            f"there is no folder {root}: give that of MNIST's files, or make it (mkdir {root}), and they are downloaded"
        )
    if other := sorted(path.name for path in root.iterdir() if not _OWN.match(path.name)):
        raise FileNotFoundError(
            f"{root} holds no {name}[.gz], but {', '.join(other[:3])}{', ...' * (len(other) > 3)}: give the folder of "
            "MNIST's files, or an empty one, into which they are downloaded"
        )
    # torchvision takes a second to import, and most calls find the files.
    from torchvision.datasets import MNIST

    try:
        MNIST(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"{root} holds no {name}[.gz] and the download failed ({error}); put the four MNIST files there by hand"
        ) from error
    file = _find(root, name)
    if file is None:
        raise FileNotFoundError(f"{root} holds no {name} even after the download")
    return file
