"""Run what a user runs under what differs on Windows, as far as it can be had elsewhere.

Usage: python tools/windows_like.py

A locale that is not UTF-8, where every file that is opened without an encoding is an error; ``os.fsync`` that refuses
what is opened for reading, and no opening of folders; worker processes that are spawned; no renaming of files that are
mapped, no deleting of files that are open; locks by ``msvcrt`` and not by ``fcntl``; and names of files that Windows
reserves, in the repository and among all that a run writes.
"""

import errno
import fcntl
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[1]
_RESERVED = re.compile(r"(?i)^(con|prn|aux|nul|com\d|lpt\d)(\.|$)|[<>:\"|?*\\\x00-\x1f]|[ .]$")
_ENVIRONMENT = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONWARNDEFAULTENCODING": "1"}
_SMALL = ("encoder_dim=4", "translator_dim=8", "translator_depth=1")


def emulate() -> None:
    """Make ``os`` behave as on Windows where it says no, and processes start by spawning."""
    real_open, real_fsync, real_replace, real_unlink = os.open, os.fsync, os.replace, os.unlink

    def open_no_folder(path: Any, *args: Any, **kwargs: Any) -> int:
        if os.path.isdir(path) and kwargs.get("dir_fd") is None:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real_open(path, *args, **kwargs)

    def fsync(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real_fsync(descriptor)

    def replace(source: Any, target: Any, **kwargs: Any) -> None:
        mapped = Path("/proc/self/maps")
        if mapped.is_file():
            lines = mapped.read_text(encoding="utf-8", errors="replace").splitlines()
            names = {os.path.realpath(source), os.path.realpath(target)}
            if busy := [line for line in lines if line.split(maxsplit=5)[-1] in names]:
                raise PermissionError(errno.EACCES, "The process cannot access the file", busy[0])
        real_replace(source, target, **kwargs)

    def unlink(path: Any, **kwargs: Any) -> None:
        opened = Path("/proc/self/fd")
        names = {os.path.realpath(link) for link in opened.iterdir()} if opened.is_dir() else set()
        if kwargs.get("dir_fd") is None and os.path.realpath(path) in names:
            raise PermissionError(errno.EACCES, "The process cannot access the file", str(path))
        real_unlink(path, **kwargs)

    for name, function in {"open": open_no_folder, "fsync": fsync, "replace": replace, "unlink": unlink}.items():
        setattr(os, name, function)
    sys.modules["fcntl"] = None  # type: ignore[assignment]
    sys.modules["msvcrt"] = locks()  # type: ignore[assignment]
    # Which opens folders.
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
    multiprocessing.set_start_method("spawn", force=True)
    warnings.filterwarnings("error", category=EncodingWarning, module="plasm")


def locks() -> SimpleNamespace:
    """What stands for ``msvcrt``: both lock bytes from where a file is read, for a process."""
    return SimpleNamespace(LK_NBLCK=2, locking=lambda descriptor, _, count: os.lockf(descriptor, os.F_TLOCK, count))


def reserved(paths: Iterable[str]) -> list[str]:
    """Those that Windows cannot have, and those that differ from another in case alone."""
    found, seen = [], dict[str, str]()
    for path in paths:
        if any(_RESERVED.search(part) for part in path.split("/")):
            found.append(path)
        if (other := seen.setdefault(path.lower(), path)) != path:
            found.append(f"{path} beside {other}")
    return found


def use(folder: Path) -> None:
    """Train, resume, evaluate, predict and convert, with a configuration that is not of ASCII alone."""
    import timm
    import torch

    from plasm import weights
    from plasm.cli import main
    from plasm.data import SAMPLES
    from plasm.models import load_model

    def run(*arguments: object) -> None:
        main([str(argument) for argument in arguments], standalone_mode=False)

    out, small = folder / "run", [part for item in _SMALL for part in ("--model-arg", item)]
    config = folder / "config.toml"
    config.write_text(f'# Größe, 大きさ\ndata_dir = "{SAMPLES}"\n', encoding="utf-8")
    common: list[object] = ["--config", config, "--model", "plasm_mmnist", "--data", "mmnist", "--out", out, *small]
    common += ["--batch-size", 2, "--clips-per-epoch", 4, "--val-clips", 2, "--device", "cpu", "--epochs", 2]
    run("train", *common)
    run("train", *common, "--resume")
    run("evaluate", "--weights", out, "--data-dir", SAMPLES, "--num-clips", 4, "--workers", 1, "--device", "cpu")
    run("predict", "--weights", out, "--out", folder / "p", "--device", "cpu")
    run("predict", "--weights", out, "--out", folder / "p.mp4", "--device", "cpu")
    torch.save({"größe": torch.zeros(2)}, folder / "old.pth")
    run("convert", folder / "old.pth", folder / "new.safetensors")
    assert list(weights.load_tensors(folder / "new.safetensors")) == ["größe"]
    model = load_model(None, str(out))
    weights.save_pretrained(model, folder / "saved", card=weights.Card(license="Über alles"))
    assert "Über alles" in (folder / "saved" / "README.md").read_text(encoding="utf-8")
    timm.create_model(f"local-dir:{folder / 'saved'}", pretrained=True)


def main() -> None:
    """Start anew in the other locale; there, use plasm and look at the names."""
    if os.environ.get("PYTHONUTF8") != "0":
        done = subprocess.run([sys.executable, __file__], env={**os.environ, **_ENVIRONMENT}, check=False)
        raise SystemExit(done.returncode)
    emulate()
    tracked = (
        subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, check=True).stdout.decode().splitlines()
    )
    with tempfile.TemporaryDirectory() as name:
        use(Path(name))
        written = [path.relative_to(name).as_posix() for path in Path(name).rglob("*")]
    if wrong := reserved([*tracked, *written]):
        raise SystemExit(f"names that Windows reserves: {', '.join(wrong)}")
    print(f"as on Windows: {len(written)} files written and read, {len(tracked)} names of the repository looked at")


if __name__ == "__main__":
    main()
