"""Cheap fingerprints of data sets: by names, sizes and the ends of their files."""

import hashlib
import os
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from .clips import StreamClips
from .moving_mnist import MovingMNIST

_END = 16384
_OPENED = 1000


def fingerprint(dataset: Dataset[Tensor], root: Path) -> dict[str, Any]:
    """Of the clips of a data set: equal for equal data, wherever it lies.

    Files are compared by their names in ``root``, their sizes, and their first and last 16 KiB (of more than a
    thousand, by those of every n-th). A data set names them in ``files``, a list of paths, or ``file``, one path; of
    one that does not, the number of clips alone is compared.

    Args:
        dataset: From ``create_dataset``.
        root: Folder of its files.

    Returns:
        Numbers of ``clips`` and ``files``, and ``sha256`` of it all.

    Raises:
        OSError: If a file has gone.
    """
    digest = hashlib.sha256()
    count = len(dataset)  # type: ignore[arg-type]
    sources: list[Any] = [dataset]
    if isinstance(dataset, MovingMNIST):
        digest.update(dataset.digits.cpu().numpy().tobytes())
    if isinstance(dataset, StreamClips):
        sources = list(dataset.streams)
        for stream in sources:
            digest.update(f"{stream.num_frames} {getattr(stream, 'first', 0)} {getattr(stream, 'clip', 0)}\n".encode())
        digest.update(dataset.windows.tobytes())
    files = list(dict.fromkeys(file for source in sources for file in _files(source)))
    every = -(-len(files) // _OPENED) or 1
    for number, file in enumerate(files):
        name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
        size = file.stat().st_size
        digest.update(f"{name} {size}\n".encode(errors="surrogateescape"))
        if number % every == 0:
            with file.open("rb") as content:
                digest.update(content.read(_END))
                content.seek(max(0, size - _END))
                digest.update(content.read(_END))
    return {"clips": count, "files": len(files), "sha256": digest.hexdigest()}


def _files(source: Any) -> list[Path]:
    named = getattr(source, "files", None)
    paths = named if isinstance(named, list | tuple) else [getattr(source, "file", None)]
    return [Path(path) for path in paths if isinstance(path, str | os.PathLike) and Path(path).is_file()]
