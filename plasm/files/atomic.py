"""Atomic writes: a reader sees the old file or the whole new one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
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


def check_writable(path: Path) -> None:
    """Check that a file or folder can be written, before the work whose result it is to hold. Nothing is made.

    Raises:
        NotADirectoryError: If it would lie below a file.
        PermissionError: If it, or the folder in which it would be made, cannot be written.
    """
    there = next(folder for folder in (path, *path.parents, Path.cwd()) if folder.exists())
    if not there.is_dir() and there != path:
        raise NotADirectoryError(f"{there} is a file; {path} cannot be written below it")
    if not os.access(there, os.W_OK):
        raise PermissionError(f"{there} cannot be written")
