"""One process at a time in the folder of a run."""

import errno
import importlib
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

_NAME = ".lock"
_BUSY = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}
# What file systems say that know no locks.
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
# Windows has no fcntl. Others cannot read what it locks, so that the byte lies behind what is written.
_SYSTEM: ModuleType | None = None
for _name in ("msvcrt", "fcntl"):
    with suppress(ImportError):
        _SYSTEM = importlib.import_module(_name)
_LOCKED_BYTE = 1 << 20
_PATIENCE = 100
_logger = logging.getLogger(__name__)
_held: set[int] = set()


@contextmanager
def lock_folder(path: Path) -> Iterator[None]:
    """Make the folder of a run, if it is not there, and keep other processes from training in it.

    The lock is the kernel's, on a file ``.lock`` that says who has it: it ends with the process, however that ends. On
    a file system without locks there is a warning in its place.

    Args:
        path: The folder. If it was made here and stays empty, it is deleted at the end.

    Raises:
        FileExistsError: If another process has the lock, or a file has the folder's name.
        OSError: If the folder cannot be written.
    """
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file; --out is a folder")
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        descriptor = _acquire(path)
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(error.errno, f"{path} cannot be written: {error.strerror}") from error
    _held.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _held:
            _release(descriptor, path / _NAME)
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()


def _acquire(path: Path) -> int:
    file, vanished = path / _NAME, 0
    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise FileExistsError(f"{file} is no file of a run: delete it, or choose another --out")
    while True:
        try:
            path.mkdir(parents=True, exist_ok=True)
            # Never through a link, since what it leads to would be written over.
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except (FileNotFoundError, FileExistsError):
            # Another process, which had made the folder, may have just deleted it.
            vanished += 1
            if vanished > _PATIENCE:
                raise
            continue
        try:
            _lock(descriptor, path)
            if _is_at(descriptor, file):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # Who had it before has deleted it in the meantime, and another process may have a new one.
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    try:
        if _SYSTEM is None:
            raise OSError(errno.ENOSYS, "this system has none")
        if hasattr(_SYSTEM, "flock"):
            _SYSTEM.flock(descriptor, _SYSTEM.LOCK_EX | _SYSTEM.LOCK_NB)
        else:
            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            _SYSTEM.locking(descriptor, _SYSTEM.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError as error:
        if error.errno in _BUSY:
            raise FileExistsError(
                f"{path} is in use: {_holder(descriptor)} trains in it. Wait until it has ended, or stop it; then the "
                "same command with --resume goes on. Or choose another --out"
            ) from error
        if error.errno not in _NO_LOCKS:
            raise
        _logger.warning("%s cannot be locked (%s): start no other run in it while this one lasts", path, error.strerror)


def _holder(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    said = re.fullmatch(rb"(\d+) ([\w.-]+)\n", os.read(descriptor, 300))
    return f"process {said[1].decode()} on {said[2].decode()}" if said else "another process"


def _is_at(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _release(descriptor: int, file: Path) -> None:
    _held.discard(descriptor)
    # While it is locked, so that nobody deletes another's; but Windows deletes nothing that is open.
    if hasattr(_SYSTEM, "flock"):
        file.unlink(missing_ok=True)
        os.close(descriptor)
    else:
        os.close(descriptor)
        with suppress(OSError):
            file.unlink(missing_ok=True)


def _leave_to_parent() -> None:
    """A process that loads clips may outlive the run for some seconds: it does not keep its lock."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
