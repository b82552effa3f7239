"""Two gloo processes compute what one does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import together
import torch
from safetensors.torch import load_file

from plasm import training
from plasm.data import SAMPLES, create_dataset
from plasm.distributed import SINGLE_PROCESS, ProcessGroup, init_process_group
from plasm.evaluation import BASELINES, evaluate, forecast, frame_mse
from plasm.models import load_model


def start(task: str, out: Path, rank: int, port: int) -> "subprocess.Popen[str]":
    env = {
        **os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, together.__file__, task, str(out), str(SAMPLES)], env=env, text=True, stderr=subprocess.PIPE
    )


def both(task: str, out: Path) -> list[tuple[int, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start(task, out, rank, port) for rank in range(2)]
    said = [process.communicate(timeout=200)[1] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    ends = both("step", tmp_path / "two")
    assert [code for code, _ in ends] == [0, 0], ends
    two = load_file(tmp_path / "two" / "step.safetensors")
    one = together.gradients(SINGLE_PROCESS, str(tmp_path / "one"), str(SAMPLES))
    assert two.keys() == one.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-6, msg=name)


def test_torchrun_gives_the_weights_of_one_process_and_one_writes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = [
        "--model", "plasm_mmnist_tiny", "--data", "mmnist", "--data-dir", str(SAMPLES), "--out", str(tmp_path / "two"),
        "--epochs", "2", "--clips-per-epoch", "16", "--batch-size", "8", "--val-clips", "5", "--device", "cpu",
        "--no-bf16", "--optimizer", "sgd", "--lr", "0.5",
        *(f"--model-arg={name}={value}" for name, value in together.MODEL.items()),
    ]  # fmt: skip
    done = subprocess.run(
        [*command, "-m", "plasm", "train", *options], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # One speaks: a line an epoch.
    assert done.stdout.count("epoch 1 ") == 1
    training.run(together.config(str(tmp_path / "one"), str(SAMPLES)))
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    torch.manual_seed(0)
    start = timm.create_model("plasm_mmnist_tiny", **together.MODEL).state_dict()
    assert one.keys() == two.keys() == start.keys()
    # Steps in proportion to the gradients: Adam's first ones have the same length whatever is left after rounding.
    moved = {name: (one[name] - start[name]).norm() for name in one}
    assert all(distance > 0 for distance in moved.values())
    for name in one:
        assert (two[name] - one[name]).norm() < 0.02 * moved[name] + 1e-6, name
    assert len(list((tmp_path / "two" / "tensorboard").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("task", ["norm", "norm-average"])
def test_what_is_measured_is_what_is_saved_whatever_each_process_saw(task: str, tmp_path: Path) -> None:
    """BatchNorm's statistics are of the clips of one process."""
    ends = both(task, tmp_path / "run")
    assert [code for code, _ in ends] == [0, 0], ends
    (row,) = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    model = load_model(None, str(tmp_path / "run"))
    clips = create_dataset("mmnist", SAMPLES, "val", num_clips=5, num_frames=20)
    errors = [frame_mse(forecast(model)(clips[i][None, :10], 10), clips[i][None, 10:]).mean() for i in range(5)]
    assert row["val_mse"] == pytest.approx(torch.stack(errors).mean().item(), rel=1e-4)


@pytest.mark.slow
def test_evaluation_covers_every_clip_once(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    ends = both("evaluate", tmp_path / "two")
    assert [code for code, _ in ends] == [0, 0], ends
    two = load_file(tmp_path / "two" / "metrics.safetensors")
    clips = create_dataset("mmnist", SAMPLES, "test", num_clips=7)
    one = evaluate(BASELINES, clips, 10, 10, batch_size=2, ssim=False)["last frame"]
    assert two.pop("num_clips") == one.num_clips == 7
    assert {name: value.item() for name, value in two.items()} == pytest.approx(one.means, rel=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_parts_are_a_partition(size: int) -> None:
    parts = [ProcessGroup(rank, size, torch.device("cpu")).part(list(range(7))) for rank in range(size)]
    assert sorted(number for part in parts for number in part) == list(range(7))


def test_a_dead_process_ends_the_others_with_a_message(tmp_path: Path) -> None:
    (first, said), (second, _) = both("die", tmp_path / "run")
    assert second == -9
    assert first == 1
    assert "LostProcessError: process 0 of 2 lost another one" in said
    assert "--resume goes on from the last checkpoint" in said
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"WORLD_SIZE": "2"}, "RANK is not set, though WORLD_SIZE is; start several processes with torchrun"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE is a whole number of at least 1, got ''; .* unset WORLD_SIZE for one process"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is a whole number of at least 1, got '0'"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is .* got 'two'"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE is .* got '-1'"),
        ({"WORLD_SIZE": "2", "RANK": ""}, "RANK is a whole number of at least 0 and below 2, got ''"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is .* and below 2, got '2'"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "x"}, "LOCAL_RANK is .* got 'x'"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_PORT is not set"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "http"}, "MASTER_PORT is .* got 'http'"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "1"}, "MASTER_ADDR is not set"),
    ],
)
def test_an_environment_that_torchrun_did_not_make(
    given: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message), init_process_group(torch.device("cpu")):
        pass


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "64", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(ValueError, match="process 64 of this machine has no GPU"),
        init_process_group(torch.device("cuda")),
    ):
        pass
