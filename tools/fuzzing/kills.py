"""Training runs of both phases that signals end, or that lose a loader process, and go on: as if nothing had been."""

import contextlib
import gc
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plasm import pictures, training
from plasm.files import atomic_write

from .case import Case, Fuzzer

SMALL = {"encoder_dim": 4, "encoder_depth": 2, "translator_dim": 8, "translator_depth": 1, "num_heads": 2}
_MOST_SIGNALS = 3
_PHASES = ("train", "pretrain")
_HANGS = 60.0
_LOADER = 97
"""How a run ends that says that its loader process was killed."""
_SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}


@dataclass(frozen=True)
class Whole:
    """A run that nothing ended.

    Attributes:
        clips: Its data.
        result: What it left.
        seconds: What it took.
    """

    clips: Path
    result: dict[str, Any]
    seconds: float


def write_clips(folder: Path, count: int) -> Path:
    """So many small clips for training, and one for validation."""
    for split, files in (("train", count), ("val", 1)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for number in range(files):
            frames = np.random.default_rng(number).integers(0, 256, (20, 16, 16), dtype=np.uint8)
            np.save(folder / split / f"{number}.npy", frames)
    return folder


def _config(clips: Path, out: Path, phase: str, workers: int = 0) -> Any:
    kind = training.TrainConfig if phase == "train" else training.PretrainConfig
    return kind(
        model="plasm_mmnist", data="clips", data_dir=str(clips), out=str(out), epochs=2, clips_per_epoch=8,
        batch_size=4, val_clips=1, device="cpu", ema=0.9, checkpoint_minutes=0.0, model_args=SMALL, workers=workers,
        data_args={"channels": 1},
    )  # fmt: skip


def draw_nothing() -> None:
    """Let what matplotlib draws be a file without a picture: drawing takes most of the time of such short runs."""

    def curves(log: Any, file: Path) -> None:
        with atomic_write(file) as beside:
            beside.write_text(f"{len(log)} epochs", encoding="ascii")

    pictures.curves = curves


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """What the loop says is of no interest."""
    nothing = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    with nothing, contextlib.redirect_stderr(nothing), contextlib.redirect_stdout(nothing):
        yield


def _attempt(
    clips: Path, out: Path, delay: float | None, number: int = 0, phase: str = "train", loader: bool = False
) -> int:
    """Begin or go on with the run, in a fork, and signal it after a delay; how it ended: 0, or minus a signal.

    With ``loader`` it is its loader process that is signalled, if there is one then.
    """
    started = time.monotonic()
    process = os.fork()
    if process == 0:
        try:
            # A signal's handler is Python's again.
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            # As in a run by a command: a spawned process, as this one's parent is, would spawn its loaders too, and
            # each of them would import torch anew.
            multiprocessing.set_start_method(None, force=True)
            training.run(_config(clips, out, phase, int(loader)), resume=True)
            os._exit(0)
        except training.RunInterruptedError as end:
            os._exit(128 + end.signal)
        except KeyboardInterrupt:
            os._exit(128 + signal.SIGINT)
        except ChildProcessError as error:
            os._exit(_LOADER if str(out) in str(error) and "Traceback" not in str(error) else 98)
        except BaseException as error:
            out.with_suffix(".error").write_text(repr(error), encoding="utf-8")
            os._exit(99)
    if delay is not None:
        time.sleep(max(0.0, delay - (time.monotonic() - started)))
        for target in _children(process) if loader else [process]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(target, number)
    while not (ended := os.waitpid(process, os.WNOHANG))[0]:
        if time.monotonic() - started > _HANGS:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            raise RuntimeError(f"a run hangs after {_HANGS:.0f} seconds")
        time.sleep(0.01)
    status = ended[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _children(process: int) -> list[int]:
    file = Path(f"/proc/{process}/task/{process}/children")
    try:
        return [int(number) for number in file.read_text(encoding="ascii").split()]
    except OSError:
        return []


def _result(run: Path) -> dict[str, Any]:
    """All that a run leaves, but for times and places."""
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    kept = {"model.safetensors", "config.json", "state.safetensors", "state.json"}
    files = {path.relative_to(run).as_posix(): path for path in run.rglob("*") if path.is_file()}
    # TensorBoard's are named by time and process, one for each attempt.
    files = {name: path for name, path in files.items() if not name.startswith("tensorboard/")}
    return {
        "log": [{key: value for key, value in json.loads(line).items() if key != "clips_per_second"} for line in lines],
        "names": sorted(files),
        "bytes": {name: path.read_bytes() for name, path in files.items() if path.name in kept or (path.suffix == ".png"
                  and "samples" in name)},
    }  # fmt: skip


def prepare(folder: Path) -> dict[str, Whole]:
    """Let one run of each phase end by itself."""
    # What an attempt would import is imported once, before the forks.
    for name in ("torch.utils.tensorboard", "torch._dynamo"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    draw_nothing()
    clips = write_clips(folder / "clips", 8)
    # No fork looks through what all of them have.
    gc.collect()
    gc.freeze()
    wholes = {}
    for phase in _PHASES:
        out = folder / phase
        # The first one reads from a disk what the second finds in memory.
        for _ in range(2):
            shutil.rmtree(out, ignore_errors=True)
            started = time.monotonic()
            if end := _attempt(clips, out, None, phase=phase):
                raise RuntimeError(f"the run does not end by itself: {end}")
        wholes[phase] = Whole(clips, _result(out), time.monotonic() - started)
    return wholes


def create(numbers: np.random.Generator, number: int, folder: Path, wholes: dict[str, Whole]) -> Case:
    """Signal a run, or its loader process, once or more, at moments drawn from all of its time."""
    phase, loader = _PHASES[number % 2], number % 8 >= 6
    count = 1 if loader else int(numbers.integers(1, _MOST_SIGNALS + 1))
    names = ["SIGKILL"] if loader else [str(name) for name in numbers.choice(list(_SIGNALS), size=count)]
    delays = numbers.uniform(0, wholes[phase].seconds, size=count)
    clips, out = wholes[phase].clips, folder / "run"

    def run() -> dict[str, Any]:
        ends = [
            _attempt(clips, out, float(delay), _SIGNALS[name], phase, loader)
            for name, delay in zip(names, delays, strict=True)
        ]
        ends.append(_attempt(clips, out, None, phase=phase))
        if {98, 99} & {*ends} or ends[-1]:
            error = out.with_suffix(".error")
            raise RuntimeError(f"{ends}: {error.read_text(encoding='utf-8') if error.is_file() else ''}")
        return _result(out)

    what = "its loader killed" if loader else f"{count} signal{'s' * (count > 1)}"
    return Case(f"{phase}, {what}", run, lambda result: result == wholes[phase].result)


FUZZER = Fuzzer(prepare, create)
