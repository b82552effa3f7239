import errno
import logging
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plasm.runs import lock, lock_folder

# The lock without fcntl is the other one.
KINDS = ["fcntl", "msvcrt"]
BUSY = r"is in use: process {pid} on .* trains in it.*--resume.*another --out"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "msvcrt":
        # Both lock bytes from the place where the file is read.
        msvcrt = SimpleNamespace(LK_NBLCK=2, locking=lambda fd, mode, count: os.lockf(fd, os.F_TLOCK, count))
        monkeypatch.setattr(lock, "_SYSTEM", msvcrt)
    return str(request.param)


def hold(path: Path, pipe: Connection) -> None:
    with lock_folder(path):
        pipe.send("locked")
        pipe.recv()


def fork(target: Callable[..., None], *arguments: Any) -> tuple[Any, Connection]:
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    process = fork.Process(target=target, args=(*arguments, there))
    process.start()
    assert here.poll(20)
    assert here.recv() == "locked"
    return process, here


def test_a_second_process_is_refused_and_told_by_whom(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "a"
    process, pipe = fork(hold, out)
    with pytest.raises(FileExistsError, match=BUSY.format(pid=process.pid)) as refused, lock_folder(out):
        pass
    assert str(out) in str(refused.value)
    assert socket.gethostname() in str(refused.value)
    pipe.send("end")
    process.join()
    assert not out.parent.exists()
    with lock_folder(out):
        assert out.is_dir()


def test_the_kernel_releases_what_a_killed_process_held(kind: str, tmp_path: Path) -> None:
    process, _ = fork(hold, tmp_path / "a")
    process.kill()
    process.join()
    assert (tmp_path / "a" / ".lock").exists()
    with lock_folder(tmp_path / "a"):
        assert str(os.getpid()) in (tmp_path / "a" / ".lock").read_text()
    assert list((tmp_path / "a").iterdir()) == []


def hold_with_a_child(path: Path, pipe: Connection) -> None:
    with lock_folder(path):
        child, _ = fork(outlive)
        pipe.send("locked")
        pipe.send(child.pid)
        pipe.recv()


def outlive(pipe: Connection) -> None:
    pipe.send("locked")
    signal.pause()


def test_processes_that_load_clips_do_not_keep_the_lock(tmp_path: Path) -> None:
    """They outlive a killed run for some seconds; their end leaves the lock of one that lives alone."""
    process, pipe = fork(hold_with_a_child, tmp_path)
    child = pipe.recv()
    try:
        process.kill()
        process.join()
        with lock_folder(tmp_path):
            os.kill(child, signal.SIGKILL)
            with pytest.raises(FileExistsError, match="is in use"), lock_folder(tmp_path):
                pass
    finally:
        os.kill(child, signal.SIGKILL)


def race(path: Path, count: int, pipe: Connection) -> None:
    pipe.send("locked")
    taken = 0
    while taken < count:
        try:
            with lock_folder(path):
                # Only one may be here at a time.
                inside = os.open(path / "inside", os.O_CREAT | os.O_EXCL)
                os.close(inside)
                (path / "inside").unlink()
                taken += 1
        except FileExistsError as error:
            if error.errno is not None:
                pipe.send(repr(error))
                return
    pipe.send("done")


def test_many_that_come_and_go_are_never_two_at_a_time(tmp_path: Path) -> None:
    racers = [fork(race, tmp_path / "a", 100) for _ in range(3)]
    assert [pipe.recv() for _, pipe in racers] == ["done"] * 3
    assert not (tmp_path / "a" / ".lock").exists()


def test_a_folder_that_was_there_or_was_written_stays(tmp_path: Path) -> None:
    with lock_folder(tmp_path / "new"):
        (tmp_path / "new" / "config.toml").touch()
    (tmp_path / "old").mkdir()
    with pytest.raises(RuntimeError), lock_folder(tmp_path / "old"):
        raise RuntimeError
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["new", "new/config.toml", "old"]


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    for system in (SimpleNamespace(flock=flock, LOCK_EX=2, LOCK_NB=4), None):
        monkeypatch.setattr(lock, "_SYSTEM", system)
        caplog.clear()
        with caplog.at_level(logging.WARNING), lock_folder(tmp_path):
            pass
        assert f"{tmp_path} cannot be locked" in caplog.text


def test_what_others_left_in_place_of_the_lock(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / ".lock").symlink_to(tmp_path / "precious")
    (tmp_path / "folder" / ".lock").mkdir(parents=True)
    names = ["link", "folder"]
    if hasattr(os, "mkfifo"):
        (tmp_path / "pipe").mkdir()
        os.mkfifo(tmp_path / "pipe" / ".lock")
        names.append("pipe")
    for name in names:
        with pytest.raises(FileExistsError, match=rf"{name}.\.lock is no file of a run"), lock_folder(tmp_path / name):
            pass
    assert (tmp_path / "precious").read_text() == "mine"
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / ".lock").write_bytes(b"\xff\x1b[31m" * 1000)
    with lock_folder(tmp_path / "text"):
        (tmp_path / "text" / ".lock").write_bytes(b"\xff\x1b[31m")
        with pytest.raises(FileExistsError, match="is in use: another process trains in it"):
            lock_folder(tmp_path / "text").__enter__()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fcntl")
def test_here_the_lock_is_flock() -> None:
    assert lock._SYSTEM.__name__ == "fcntl"  # type: ignore[union-attr]
