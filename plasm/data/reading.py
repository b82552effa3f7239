"""One kind of error for whatever a library raises while it reads a file."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plasm.files import reason, shown

from .limits import FileTooLargeError


@contextmanager
def reading(file: Path, kind: str) -> Iterator[None]:
    """Read a file, of which anything may be damaged: what is raised names it, and the ``kind`` that it should be.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is no regular file (a pipe would be waited for), or anything is raised in between.
        FileTooLargeError: If the memory does not suffice.
    """
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"there is no file {file}") from None
    if not stat.S_ISREG(mode):
        raise ValueError(f"{file} is a folder, pipe or device, wanted {kind}")
    with naming(str(file), kind):
        yield


@contextmanager
def naming(name: str, kind: str) -> Iterator[None]:
    """What is raised in between names the file; see ``reading``."""
    try:
        yield
    except (ImportError, PermissionError):
        raise
    except MemoryError as error:
        raise FileTooLargeError(f"{name} needs more memory than there is: {shown(error)}") from error
    except Exception as error:
        # Libraries raise what they like on damage; our own errors name the file already.
        if isinstance(error, ValueError) and name in str(error):
            raise
        raise ValueError(f"{name} is not {kind}: {reason(error)}") from error
