"""Folders of training runs that are damaged, used by two processes at once, or resumed on other data."""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from plasm import training
from plasm.distributed import SINGLE_PROCESS
from plasm.training.assembly import prepare as prepare_run

from .case import Case, Fuzzer
from .kills import SMALL, draw_nothing, quietly, write_clips
from .weights import MUTATIONS

_FILES = ("state.json", "state.safetensors", "log.jsonl", "history.json", "config.toml")
_MUTATIONS = ("cut", "longer", "bits flipped", "zeros", "random", "gone", "null", "list", "deep")
_TEXTS = {"null": b"null\n", "list": b"[1]\n", "deep": b"[" * 100_000}


@dataclass(frozen=True)
class Shared:
    """A run of each phase that was stopped half-way, its configuration, and the weights it ends with.

    Attributes:
        clips: Folder of the data.
        configs: Of the runs, by phase.
        stopped: Their folders.
        weights: Bytes of ``model.safetensors``, had nothing happened.
    """

    clips: Path
    configs: dict[str, Any]
    stopped: dict[str, Path]
    weights: dict[str, bytes]


def prepare(folder: Path) -> Shared:
    """Train both phases, once to the end and once to the middle."""
    draw_nothing()
    clips = write_clips(folder / "clips", 4)
    common: dict[str, Any] = {
        "model": "plasm_mmnist", "data": "clips", "data_dir": str(clips), "epochs": 2, "clips_per_epoch": 4,
        "batch_size": 2, "val_clips": 1, "device": "cpu", "checkpoint_minutes": 0.0, "model_args": SMALL,
        "data_args": {"channels": 1},
    }  # fmt: skip
    first = folder / "pretrain_whole"
    configs: dict[str, Any] = {
        "pretrain": training.PretrainConfig(out=str(first), **common),
        "train": training.TrainConfig(out=str(folder / "train_whole"), init=str(first), freeze_encoder=False, **common),
    }
    weights, stopped = {}, {}
    for phase, config in configs.items():
        shutil.rmtree(config.out, ignore_errors=True)
        with quietly():
            training.run(config)
        weights[phase] = (Path(config.out) / "model.safetensors").read_bytes()
        stopped[phase] = folder / f"{phase}_stopped"
        shutil.rmtree(stopped[phase], ignore_errors=True)
        with quietly():
            prepare_run(replace(config, out=str(stopped[phase])), SINGLE_PROCESS, resume=False).fit(epochs=1)
    return Shared(clips, configs, stopped, weights)


def create(numbers: np.random.Generator, number: int, folder: Path, shared: Shared) -> Case:
    """Do something to a run that was stopped, and let it go on."""
    phase, out = ("train", "pretrain")[number // 4 % 2], folder / "run"
    shutil.copytree(shared.stopped[phase], out)
    config = replace(shared.configs[phase], out=str(out))

    def resume(config: Any = config) -> Path:
        with quietly():
            training.run(config, resume=True)
        return out

    def right(run: Path, lost: bool = False) -> bool:
        rows = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        same = (run / "model.safetensors").read_bytes() == shared.weights[phase]
        return same and [row["epoch"] for row in rows] in ([[2], [1, 2]] if lost else [[1, 2]])

    if number % 4 == 2:
        return _two(phase, out, resume, right)
    if number % 4 == 3:
        return _other_data(numbers, phase, folder, config, shared, resume)
    name, title = str(numbers.choice(_FILES)), str(numbers.choice(_MUTATIONS))
    files = sorted(out.rglob(name))
    if name.startswith("state") and numbers.random() < 0.5:
        files = files[-1:]
    for file in files:
        _damage(numbers, title, file)
    # A log without a line is one that was moved away: the run goes on without, and says so.
    log = out / "log.jsonl"
    lost = not log.is_file() or b"\n" not in log.read_bytes()
    return Case(f"{phase}, {name}: {title}", resume, lambda run: right(run, lost), str(out))


def _damage(numbers: np.random.Generator, title: str, file: Path) -> None:
    if title == "gone":
        file.unlink()
        return
    content = file.read_bytes()
    file.write_bytes(_TEXTS[title] if title in _TEXTS else MUTATIONS[title](numbers, content, content[::-1]))


def _two(phase: str, out: Path, resume: Callable[[], Path], right: Callable[[Path], bool]) -> Case:
    """Two processes that both want to go on with one run: one does, the other gets an error."""

    def both() -> Path:
        other = os.fork()
        if other == 0:
            try:
                resume()
                os._exit(0)
            except (OSError, ValueError) as error:
                os._exit(0 if str(out) in str(error) else 98)
            except BaseException:
                os._exit(99)
        try:
            resume()
        except (OSError, ValueError) as error:
            if str(out) not in str(error):
                raise
        deadline = time.monotonic() + 60
        while not (ended := os.waitpid(other, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(other, 9)
                os.waitpid(other, 0)
                raise RuntimeError("the other process hangs")
            time.sleep(0.05)
        if code := os.waitstatus_to_exitcode(ended[1]):
            raise RuntimeError(f"the other process ended with {code}")
        return out

    return Case(f"{phase}, two processes at once", both, right, str(out))


def _other_data(
    numbers: np.random.Generator, phase: str, folder: Path, config: Any, shared: Shared, resume: Callable[[Any], Path]
) -> Case:
    """Clips that changed since the run was stopped."""
    clips = folder / "clips"
    shutil.copytree(shared.clips, clips)
    title = str(numbers.choice(["none", "values", "one more", "one less", "name"]))
    file = clips / "train" / "1.npy"
    if title == "values":
        np.save(file, np.load(file)[:, ::-1, :] ^ 85)
    elif title == "one more":
        shutil.copyfile(file, clips / "train" / "9.npy")
    elif title == "one less":
        file.unlink()
    elif title == "name":
        file.rename(file.with_name("8.npy"))

    def right(run: Path) -> bool:
        return title == "none" and (run / "model.safetensors").read_bytes() == shared.weights[phase]

    return Case(
        f"{phase}, other data: {title}", lambda: resume(replace(config, data_dir=str(clips))), right, str(clips)
    )


FUZZER = Fuzzer(prepare, create)
