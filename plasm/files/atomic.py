"""Atomic writes: a reader sees the old file or the whole new one. Folders that hold nothing at the end are not left."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Give a path beside ``file`` to write to, and rename it at the end; after an error ``file`` is what it was."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        yield beside
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def make_folder(path: Path) -> Iterator[None]:
    """Make a folder, and those that it lies in; what is still empty of them at the end is deleted again."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
