"""A record of the exports of this user: an exported file is a program, and only known ones run without trust.

It is a text file in the user's cache folder, with the sha256 of an export on each line.
"""

import logging
import os
import sys
from pathlib import Path

from plasm import weights

_RECORD = "exports"
_logger = logging.getLogger(__name__)


class UntrustedFileError(ValueError):
    """An exported file is of unknown origin."""


def check_origin(file: Path, named: Path | None = None) -> None:
    """Check that this user exported a file on this machine.

    Args:
        file: That is looked at.
        named: What the error calls it.

    Raises:
        UntrustedFileError: If the record knows no file of its sha256.
    """
    sha256 = weights.file_sha256(file)
    if sha256 not in _known():
        raise UntrustedFileError(
            f"{named or file} was not exported by you on this machine (sha256 {sha256[:12]}...). Such a file is a "
            "program, and may do whatever its author wants: if you know the author, --trust runs it (trust=True in "
            "Python). Weights that come as .safetensors need no trust"
        )


def remember(file: Path) -> None:
    """Note that this user exported a file on this machine."""
    sha256, record = weights.file_sha256(file), record_file()
    if sha256 in _known():
        return
    try:
        record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with record.open("a", encoding="ascii") as stream:
            stream.write(f"{sha256}\n")
    except OSError as error:
        _logger.warning("%s cannot be written (%s): to run %s will take --trust", record, error, file)


def record_file() -> Path:
    """The record of this user's exports, a sha256 a line: in the folder PLASM_CACHE, or the system's for caches."""
    if given := os.environ.get("PLASM_CACHE"):
        return Path(given) / _RECORD
    home = Path.home()
    if sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        folder = home / "Library" / "Caches"
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return folder / "plasm" / _RECORD


def _known() -> set[str]:
    record = record_file()
    try:
        # Another user's would be another user's word.
        if hasattr(os, "getuid") and record.stat().st_uid != os.getuid():
            return set()
        return set(record.read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return set()
