"""A run that is stopped and resumed is the run that was not."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import interrupted
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from timm.models import build_model_with_cfg, register_model
from torch import nn

from plasm import training
from plasm.data import SAMPLES
from plasm.distributed import ProcessGroup
from plasm.models import load_model
from plasm.training import PretrainConfig, TrainConfig, checkpoints
from plasm.training.assembly import prepare

MODEL: dict[str, Any] = {"encoder_dim": 8, "translator_dim": 16, "translator_depth": 1}
HERE = ProcessGroup(0, 1, torch.device("cpu"))


def arguments(out: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model": "plasm_mmnist_tiny", "data": "mmnist", "data_dir": str(SAMPLES), "out": str(out), "epochs": 3,
        "clips_per_epoch": 16, "batch_size": 4, "val_clips": 2, "device": "cpu", "model_args": MODEL, **changes,
    }  # fmt: skip


def command(out: Path) -> list[str]:
    return [
        "train", "--model", "plasm_mmnist_tiny", "--data", "mmnist", "--data-dir", str(SAMPLES), "--out", str(out),
        "--epochs", "3", "--clips-per-epoch", "24", "--batch-size", "4", "--val-clips", "2", "--device", "cpu",
        "--ema", "0.9", "--checkpoint-minutes", "0", "--resume",
        *(f"--model-arg={name}={value}" for name, value in MODEL.items()),
    ]  # fmt: skip


def interrupt(seed: int, signals: list[int], out: Path) -> tuple[dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, interrupted.__file__, str(seed), ",".join(map(str, signals)), str(out), *command(out)],
        capture_output=True, text=True, timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def result(run: Path) -> dict[str, Any]:
    """All that a run leaves, but for times and places."""
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    states = {path.name: path for path in (run / "checkpoints").iterdir()}
    return {
        "log": [{key: value for key, value in row.items() if key != "clips_per_second"} for row in log],
        "weights": (run / "model.safetensors").read_bytes(),
        "states": {name: (path / "state.safetensors").read_bytes() for name, path in states.items()},
        "values": {name: (path / "state.json").read_text() for name, path in states.items()},
        "pictures": {path.name: path.read_bytes() for path in (run / "samples").iterdir()},
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the run of ``command`` leaves when nothing stops it."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    changes = {"clips_per_epoch": 24, "ema": 0.9, "checkpoint_minutes": 0.0, "optimizer": "muon", "lr": 0.004}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the processes have
    training.run(TrainConfig(**arguments(out, **changes)))
    torch.set_num_threads(threads)
    return result(out)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(
    seed: int, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    found, _ = interrupt(seed, [signal.SIGKILL] * 6, tmp_path / "run")
    ends, checkpoints = found["ends"], found["checkpoints"]
    assert ends.count(-signal.SIGKILL) >= 3
    # It went on from some of them.
    assert len(set(checkpoints) - {""}) >= 2
    assert ends[-1] == 0
    assert result(tmp_path / "run") == uninterrupted
    assert list((tmp_path / "run").rglob(".*")) == []


@pytest.mark.slow
def test_sigterm_and_ctrl_c_save_and_say_how_to_go_on(uninterrupted: dict[str, Any], tmp_path: Path) -> None:
    found, said = interrupt(3, [signal.SIGTERM, signal.SIGINT, signal.SIGTERM], tmp_path / "run")
    ends = found["ends"]
    assert ends[-1] == 0
    stopped = [end for end in ends if end]
    # One that came while the process was still preparing the run ended it before there was anything to save.
    assert stopped
    assert set(stopped) <= {128 + signal.SIGTERM, 128 + signal.SIGINT, -signal.SIGTERM, 1}
    assert result(tmp_path / "run") == uninterrupted
    if {128 + signal.SIGTERM, 128 + signal.SIGINT} & set(stopped):
        assert "the same command with --resume goes on" in said


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the run of ``arguments`` leaves when nothing stops it."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    training.run(TrainConfig(**arguments(out)))
    return result(out)


@pytest.mark.parametrize(("number", "step"), [(signal.SIGTERM, 2), (signal.SIGINT, 4)])
def test_a_signal_saves_after_the_step_it_came_in(
    number: signal.Signals, step: int, whole: dict[str, Any], tmp_path: Path
) -> None:
    """In the middle of an epoch, and in its last step; and no other checkpoint is due."""
    config = TrainConfig(**arguments(tmp_path / "parts"))
    trainer = prepare(config, HERE, resume=False)
    take_step = trainer._train_step

    def signalled(batch: Any) -> torch.Tensor:
        loss = take_step(batch)
        if trainer.state.step == step - 1:
            os.kill(os.getpid(), number)
        return loss

    trainer._train_step = signalled  # type: ignore[method-assign]
    with pytest.raises(training.RunInterruptedError, match=f"{number.name}: stopped in epoch") as stopped:
        trainer.fit()
    assert stopped.value.signal == number
    (saved,) = (tmp_path / "parts" / "checkpoints").iterdir()
    assert saved.name == f"step_{step:08d}"
    training.run(config, resume=True)
    assert result(tmp_path / "parts") == whole


def test_a_run_that_lives_keeps_others_out_and_one_that_was_killed_does_not(tmp_path: Path) -> None:
    """As a job that is started again while its first process lives; with workers, which end some seconds later."""
    out = tmp_path / "run"
    told = {"workers": 2, "epochs": 1000, "checkpoint_minutes": 0.0}
    process = subprocess.Popen(
        [
            sys.executable, "-m", "plasm", "train", "--model", "plasm_mmnist_tiny", "--data", "mmnist", "--data-dir",
            str(SAMPLES), "--out", str(out), "--epochs", "1000", "--clips-per-epoch", "16", "--batch-size", "4",
            "--val-clips", "2", "--device", "cpu", "--workers", "2", "--checkpoint-minutes", "0",
            *(f"--model-arg={name}={value}" for name, value in MODEL.items()),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 100
        while not list(out.glob("checkpoints/step_*8")) and time.monotonic() < deadline:
            time.sleep(0.05)
        config = training.create_config(TrainConfig, arguments(out, **told))
        for resume in (True, False):
            with pytest.raises(FileExistsError, match=f"is in use: process {process.pid} on .* trains in it"):
                training.run(config, resume=resume)
        with pytest.raises(FileExistsError, match="is in use"):
            training.run(config, fast_dev_run=True)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    trainer = prepare(config, HERE, resume=True)
    assert trainer.state.steps_done >= 8
    assert [row["epoch"] for row in trainer.folder.log.rows] == list(range(1, trainer.state.epoch + 1))


class Dropped(nn.Module):
    """A model that draws in every step, and counts, as BatchNorm does."""

    in_frames, out_frames = 10, 10

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(10, 10, 3, padding=1), nn.BatchNorm2d(10), nn.Dropout(0.5))

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        frames: torch.Tensor = self.body(clip[:, :, 0])
        return frames.unsqueeze(2)


@register_model
def dropped(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return build_model_with_cfg(Dropped, "dropped", pretrained, kwargs_filter=("num_classes", "in_chans"), **kwargs)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_users_model_with_dropout_resumes_in_the_middle_of_an_epoch(workers: int, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"model": "dropped", "model_args": {}, "workers": workers, "accumulate": 2}
    training.run(TrainConfig(**arguments(tmp_path / "whole", **changes)))
    config = TrainConfig(**arguments(tmp_path / "parts", **changes))
    trainer = prepare(config, HERE, resume=False)
    look = trainer._look

    def stop(progress: Any) -> None:
        look(progress)
        if trainer.state.epoch == 1 and trainer.state.step == 2:
            trainer.save()
            raise KeyboardInterrupt

    trainer._look = stop  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    training.run(config, resume=True)
    assert result(tmp_path / "parts") == result(tmp_path / "whole")
    loaded = load_model("dropped", str(tmp_path / "parts"))
    assert loaded.state_dict()["body.1.num_batches_tracked"] == 3 * 4 * 2


def test_a_run_killed_before_its_first_checkpoint_starts_its_log_anew(tmp_path: Path) -> None:
    config = TrainConfig(**arguments(tmp_path / "run"))
    prepare(config, HERE, resume=False).fit(epochs=1)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    training.run(config, resume=True)
    assert [row["epoch"] for row in result(tmp_path / "run")["log"]] == [1, 2, 3]


def test_weights_that_are_not_finite_make_no_checkpoint(tmp_path: Path) -> None:
    config = TrainConfig(**arguments(tmp_path / "run"))
    trainer = prepare(config, HERE, resume=False)
    trainer.fit(epochs=1)
    before = result(tmp_path / "run")
    with torch.no_grad():
        trainer.state.parameters[0].view(-1)[0] = float("nan")
    with pytest.raises(FloatingPointError, match="weights are not finite"):
        trainer.save()
    assert result(tmp_path / "run") == before


@pytest.mark.parametrize("kind", [PretrainConfig, TrainConfig])
def test_resuming_in_both_phases(kind: type[Any], tmp_path: Path) -> None:
    training.run(kind(**arguments(tmp_path / "whole")))
    config = kind(**arguments(tmp_path / "parts"))
    prepare(config, HERE, resume=False).fit(epochs=1)
    assert not (tmp_path / "parts" / "report.md").exists()
    training.run(config, resume=True)
    assert result(tmp_path / "parts") == result(tmp_path / "whole")
    # A run that has ended stays as it is.
    training.run(config, resume=True)
    assert result(tmp_path / "parts") == result(tmp_path / "whole")


def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_used(
    whole: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = TrainConfig(**arguments(tmp_path / "parts"))
    prepare(config, HERE, resume=False).fit(epochs=2)
    _, newest = sorted((tmp_path / "parts" / "checkpoints").iterdir())
    content = bytearray((newest / "state.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "state.safetensors").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        training.run(config, resume=True)
    assert f"checkpoint {newest} is damaged" in caplog.text
    assert result(tmp_path / "parts") == whole


def test_when_every_checkpoint_is_damaged_nothing_is_overwritten(tmp_path: Path) -> None:
    config = TrainConfig(**arguments(tmp_path / "run"))
    prepare(config, HERE, resume=False).fit(epochs=2)
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        (path / "state.json").write_text("{")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(OSError, match=r"every checkpoint in .* is damaged"):
        training.run(config, resume=True)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_line_that_was_being_written_is_forgotten(whole: dict[str, Any], tmp_path: Path) -> None:
    config = TrainConfig(**arguments(tmp_path / "parts"))
    prepare(config, HERE, resume=False).fit(epochs=2)
    with (tmp_path / "parts" / "log.jsonl").open("a") as log:
        log.write('{"epoch": 3, "cl')
    training.run(config, resume=True)
    assert result(tmp_path / "parts") == whole


@pytest.fixture(scope="module")
def on_clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Files, and a run on them after its first epoch."""
    data, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("runs") / "run"
    for number in range(8):
        frames = np.random.default_rng(number).integers(0, 255, (40, 64, 64), np.uint8)
        for split in ("train", "val"):
            (data / split).mkdir(exist_ok=True)
            np.save(data / split / f"{number}.npy", frames)
    prepare(TrainConfig(**of_clips(data, out)), HERE, resume=False).fit(epochs=1)
    return data, out


def of_clips(data: Path, out: Path, **changes: Any) -> dict[str, Any]:
    told = {"data": "clips", "data_dir": str(data), "clips_per_epoch": 8, "epochs": 2, "data_args": {"channels": 1}}
    return arguments(out, **{**told, **changes})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: shutil.copy(data / "train" / "1.npy", data / "train" / "9.npy"),
         "9 training files with 18 clips, were 8 files with 16 clips"),
        (lambda data: (data / "val" / "1.npy").unlink(),
         "7 validation files with 14 clips, were 8 files with 16 clips"),
        (lambda data: shutil.copy(data / "train" / "1.npy", data / "train" / "2.npy"),
         "other names, sizes or content of its training files, 8 files with 16 clips"),
        (lambda data: (data / "train" / "1.npy").rename(data / "train" / "one.npy"), "other names, sizes or content"),
    ],
)  # fmt: skip
def test_other_data_is_an_error_or_on_request_a_warning(
    change: Any, said: str, on_clips: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, out = (Path(shutil.copytree(path, tmp_path / path.name)) for path in on_clips)
    config = TrainConfig(**of_clips(data, out))
    before, saved = result(out), (out / "config.toml").read_bytes()
    change(data)
    with pytest.raises(ValueError, match=f"is not the data that .* has seen: {said}.*--init .*--allow-changed-data"):
        training.run(replace(config, checkpoint_minutes=5.0), resume=True)
    assert result(out) == before
    assert (out / "config.toml").read_bytes() == saved
    with caplog.at_level(logging.WARNING):
        trainer = prepare(config, HERE, resume=True, allow_changed_data=True)
    assert said in caplog.text
    assert "going on (--allow-changed-data)" in caplog.text
    assert trainer.state.epoch == 1
    trainer.save()
    trainer.fit(epochs=1)  # no more, so that the folder is let go
    caplog.clear()
    prepare(config, HERE, resume=True)
    # A command that ran in this process leaves the package's log at INFO.
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_data_that_was_moved_is_the_same_data(on_clips: tuple[Path, Path], tmp_path: Path) -> None:
    data, out = (Path(shutil.copytree(path, tmp_path / "other" / path.name)) for path in on_clips)
    assert prepare(TrainConfig(**of_clips(data, out)), HERE, resume=True).state.epoch == 1


def test_data_that_makes_other_steps_cannot_be_taken_up(on_clips: tuple[Path, Path], tmp_path: Path) -> None:
    data, out = (Path(shutil.copytree(path, tmp_path / path.name)) for path in on_clips)
    for number in range(1, 8):
        (data / "train" / f"{number}.npy").unlink()
    config = TrainConfig(**of_clips(data, out, batch_size=2))
    config.save(out / "config.toml")
    with pytest.raises(ValueError, match=r"An epoch would have 1 steps, and had 2: .*--init"):
        prepare(config, HERE, resume=True, allow_changed_data=True)


ROW = {"epoch": 1, "clips": 16, "loss": 0.1, "lr": 0.01, "clips_per_second": 9.0}


def rows(*changes: dict[str, Any]) -> bytes:
    return b"".join(json.dumps({**ROW, **change}).encode() + b"\n" for change in changes)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"null", "line 1 of .*log.jsonl is damaged: wanted numbers by name"),
        (b"[1]\n", "line 1 of .*log.jsonl is damaged: wanted numbers by name"),
        (b"[" * 100_000, "line 1 of .*log.jsonl is damaged: it is nested too deeply"),
        (rows({}) + b'{"epoch": 2, "cl\n' + rows({"epoch": 2, "clips": 32}), "line 2 of .*log.jsonl is damaged"),
        (rows({}) + b"garbage", "line 2 of .*log.jsonl is damaged"),
        (b"\xff\xfe\n", "line 1 of .*log.jsonl is damaged"),
        (rows({"clips": "16"}), "line 1 of .*log.jsonl is damaged: wanted numbers by name"),
        (rows({"loss": float("nan")}), "line 1 of .*log.jsonl is damaged: wanted numbers by name"),
        (b'{"epoch": 1, "clips": 16, "loss": 0.5}\n', "clips_per_second among them"),
        (rows({"val_mse": None}), "line 1 of .*log.jsonl is damaged: wanted numbers by name"),
        (rows({"epoch": 2, "clips": 16}, {"epoch": 2, "clips": 32}), "not the log of this run"),
        (rows({}), r"not the log of this run, .* epoch 2 with 16 clips each: it has 1 epochs: 1 \(16 clips\)"),
        (rows({}, {"epoch": 2, "clips": 64}), "not the log of this run"),
    ],
)
def test_a_log_that_is_not_what_it_should_be_stays_as_it_is(
    content: bytes, said: str, stopped: Path, tmp_path: Path
) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    (tmp_path / "run" / "log.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        training.run(TrainConfig(**arguments(tmp_path / "run")), resume=True)
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == content
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 2


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ``arguments`` after two of its epochs."""
    out = tmp_path_factory.mktemp("runs") / "stopped"
    prepare(TrainConfig(**arguments(out)), HERE, resume=False).fit(epochs=2)
    return out


def test_a_log_that_was_moved_away_begins_again(
    stopped: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    (tmp_path / "run" / "log.jsonl").unlink()
    config = TrainConfig(**arguments(tmp_path / "run"))
    with caplog.at_level(logging.WARNING):
        training.run(config, resume=True)
    assert "log.jsonl has no line of the 2 epochs so far: going on without" in caplog.text
    assert [row["epoch"] for row in result(tmp_path / "run")["log"]] == [3]
    training.run(config, resume=True)
    assert [row["epoch"] for row in result(tmp_path / "run")["log"]] == [3]


def test_another_configuration_cannot_be_resumed(tmp_path: Path) -> None:
    config = TrainConfig(**arguments(tmp_path / "run"))
    prepare(config, HERE, resume=False).fit(epochs=1)
    with pytest.raises(ValueError, match=r"another configuration: lr is 0\.5, was 0\.01"):
        training.run(TrainConfig(**arguments(tmp_path / "run", lr=0.5)), resume=True)
    with pytest.raises(ValueError, match="is for `plasm train`, this is `plasm pretrain`"):
        training.run(PretrainConfig(**arguments(tmp_path / "run")), resume=True)


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    training.run(TrainConfig(**arguments(tmp_path / "run")))
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "step_00000008",
        "step_00000012",
    ]
    state = load_file(tmp_path / "run" / "checkpoints" / "step_00000012" / "state.safetensors")
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(state[f"model.{name}"], tensor) for name, tensor in weights.items())


def test_a_run_is_made_longer_until_it_decays(tmp_path: Path) -> None:
    """Pieces of wsd add up, by Muon, too, whose state is not tensors alone."""
    told: dict[str, Any] = {"schedule": "wsd", "warmup_steps": 2, "optimizer": "muon", "weight_decay": 0.1}
    training.run(TrainConfig(**arguments(tmp_path / "whole", epochs=3, decay_epochs=1, **told)))
    training.run(TrainConfig(**arguments(tmp_path / "pieces", epochs=2, **told)))
    training.run(TrainConfig(**arguments(tmp_path / "pieces", epochs=3, decay_epochs=1, **told)), resume=True)
    whole, pieces = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "pieces"))
    assert all(torch.equal(whole[name], pieces[name]) for name in whole)
    with pytest.raises(ValueError, match="decays already"):
        training.run(TrainConfig(**arguments(tmp_path / "pieces", epochs=5, decay_epochs=1, **told)), resume=True)
    with pytest.raises(ValueError, match=r"lr is 0.02, was 0.01"):
        training.run(TrainConfig(**arguments(tmp_path / "pieces", lr=0.02, epochs=5, **told)), resume=True)
    with pytest.raises(ValueError, match=r"rollout is 2, was 1"):
        training.run(
            TrainConfig(**arguments(tmp_path / "pieces", rollout=2, epochs=3, decay_epochs=1, **told)), resume=True
        )


def test_a_run_is_not_made_shorter_than_it_is(tmp_path: Path) -> None:
    """It would train nothing, and note that its weights are of fewer epochs."""
    told: dict[str, Any] = {"schedule": "wsd", "clips_per_epoch": 4}
    training.run(TrainConfig(**arguments(tmp_path, epochs=2, **told)))
    before = (tmp_path / "config.toml").read_bytes()
    for shorter in ({"epochs": 1}, {"epochs": 1, "decay_epochs": 1}):
        with pytest.raises(ValueError, match="has 2 epochs already, more than --epochs 1"):
            training.run(TrainConfig(**arguments(tmp_path, **told, **shorter)), resume=True)
    assert (tmp_path / "config.toml").read_bytes() == before
    # As many as it has are no more than its report.
    training.run(TrainConfig(**arguments(tmp_path, epochs=2, **told)), resume=True)


def test_a_run_may_roll_out_from_its_decay_on(tmp_path: Path) -> None:
    told: dict[str, Any] = {"schedule": "wsd", "clips_per_epoch": 4}
    training.run(TrainConfig(**arguments(tmp_path, epochs=1, **told)))
    training.run(TrainConfig(**arguments(tmp_path, epochs=2, decay_epochs=1, rollout=2, **told)), resume=True)
    assert "rollout = 2" in (tmp_path / "config.toml").read_text(encoding="utf-8")
    assert "rollout = 1" in (tmp_path / "config_before_decay.toml").read_text(encoding="utf-8")
    assert "repeats the run" not in (tmp_path / "report.md").read_text(encoding="utf-8")
    training.run(TrainConfig(**arguments(tmp_path, epochs=2, decay_epochs=1, rollout=2, **told)), resume=True)
    assert "rollout = 1" in (tmp_path / "config_before_decay.toml").read_text(encoding="utf-8")


def test_an_average_may_be_shorter_from_the_decay_on(tmp_path: Path) -> None:
    """Its decay is what the steps from there on use; an average that was not kept is not there to be taken up."""
    told: dict[str, Any] = {"schedule": "wsd", "clips_per_epoch": 4}
    for decay in (0.9, 1e-9):
        run = tmp_path / str(decay)
        training.run(TrainConfig(**arguments(run, epochs=1, ema=0.9, **told)))
        training.run(TrainConfig(**arguments(run, epochs=2, decay_epochs=1, ema=decay, **told)), resume=True)
    (checkpoint,) = (tmp_path / "1e-09" / "checkpoints").glob("*2")
    state = load_file(checkpoint / "state.safetensors")
    averages, shorter = (load_file(tmp_path / name / "model.safetensors") for name in ("0.9", "1e-09"))
    assert all(torch.allclose(state[f"model.{name}"], tensor) for name, tensor in shorter.items())
    assert not all(torch.allclose(averages[name], tensor) for name, tensor in shorter.items())
    training.run(TrainConfig(**arguments(tmp_path / "none", epochs=1, **told)))
    with pytest.raises(ValueError, match=r"ema is 0.9, was 0.0"):
        training.run(TrainConfig(**arguments(tmp_path / "none", epochs=2, ema=0.9, **told)), resume=True)


def test_a_refused_resume_leaves_every_file_as_it_was(tmp_path: Path) -> None:
    """Its configuration above all, by which the run is resumed later on."""
    run, told = tmp_path / "run", {"schedule": "wsd", "clips_per_epoch": 4, "ema": 0.9}
    training.run(TrainConfig(**arguments(run, epochs=2, **told)))

    def refuse(message: str, **changes: Any) -> None:
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        with pytest.raises(ValueError, match=message):
            training.run(TrainConfig(**{**arguments(run, **told), **changes}), resume=True)
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before

    refuse("decays already", epochs=3, decay_epochs=2, rollout=2, ema=0.5)
    with (run / "log.jsonl").open("ab") as log:
        log.write(b"damaged\n")
    refuse(r"log\.jsonl.*(damaged|JSON)", epochs=3)


def test_a_checkpoint_of_the_former_layout_is_refused_and_kept(tmp_path: Path) -> None:
    """It numbered the parameters; or the constructor had other defaults then."""
    config = TrainConfig(**arguments(tmp_path / "run"))
    trainer = prepare(config, HERE, resume=False)
    trainer.fit(epochs=1)
    found = checkpoints.load_newest(trainer.folder.checkpoints)
    assert found is not None
    names = sorted({name.rpartition(".")[0] for name in found.tensors if name.startswith("optimizer.")})
    old = {
        f"optimizer.{names.index(name.rpartition('.')[0])}.{name.rpartition('.')[2]}" if name.startswith("optimizer.")
        else name: tensor for name, tensor in found.tensors.items()
    }  # fmt: skip
    for tensors in (old, {name: tensor[None] for name, tensor in found.tensors.items()}):
        checkpoints.save(tensors, found.values, trainer.folder.checkpoints, trainer.state.steps_done)
        before = result(tmp_path / "run")
        with pytest.raises(ValueError, match=r"an earlier plasm wrote them.*start another with --init"):
            training.run(config, resume=True)
        assert result(tmp_path / "run") == before


def test_moments_come_back_in_the_layout_of_their_weights(tmp_path: Path) -> None:
    config = TrainConfig(**arguments(tmp_path / "run"))
    trainer = prepare(config, HERE, resume=False)
    trainer.fit(epochs=1)
    resumed = prepare(config, HERE, resume=True)
    assert any(not parameter.is_contiguous() for parameter in trainer.state.parameters)
    for old, new in zip(trainer.state.parameters, resumed.state.parameters, strict=True):
        for key, moment in trainer.state.optimizer.state[old].items():
            assert torch.equal(moment, resumed.state.optimizer.state[new][key])
            assert moment.stride() == resumed.state.optimizer.state[new][key].stride()
    assert trainer.state.scheduler.get_last_lr() == resumed.state.scheduler.get_last_lr()
