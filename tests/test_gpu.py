"""benchmarks/gpu.py, which has ten minutes on somebody's GPU and no second try, on a CPU."""

import csv
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from click.testing import CliRunner
from timm.models import register_model
from torch import nn

from plasm.runs import TrainConfig
from plasm.runs.config import read_config

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "plasm" / "data" / "samples"
CPU = torch.device("cpu")
STEPS = ["tests", "throughput", "sparse", "clips", "error"]


@register_model
def gpu_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PLA-SM of a few channels."""
    small = {"encoder_dim": 4, "translator_dim": 16, "translator_depth": 1, **kwargs}
    model: nn.Module = timm.create_model("plasm_mmnist_tiny", pretrained=pretrained, **small)
    return model


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gpu")


def test_weights_in_parts_are_joined_by_the_documented_command(gpu: Any, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    content = bytes(range(250)) * 10
    file.write_bytes(content)
    parts = gpu.split(file, 999)
    assert [part.name for part in parts] == [f"model.safetensors.{number:03d}" for number in range(3)]
    assert not file.exists()
    (command,) = [line.strip() for line in gpu.__doc__.splitlines() if line.strip().startswith("cat ")]
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "model.safetensors: OK\n"
    assert file.read_bytes() == content
    parts[1].write_bytes(b"changed")
    assert subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, check=False).returncode


def test_from_the_command_to_weights_that_timm_loads(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "VAL_CLIPS", 2)
    monkeypatch.setattr(gpu, "TEST_CLIPS", 2)
    # What others compute is tested below; they would leave no time here.
    monkeypatch.setattr(gpu, "run_limited", lambda command, seconds: (None, "", f"stopped after {seconds:.0f} s"))
    monkeypatch.setattr(gpu, "throughput", lambda *_: "0 rows")
    command = ["--minutes", "0.15", "--data-dir", SAMPLES, "--out", tmp_path / "out", "--device", "cpu",
               "--model", "gpu_small", "--shard-mb", "1"]  # fmt: skip
    CliRunner().invoke(gpu.main, list(map(str, command)), catch_exceptions=False)
    out = tmp_path / "out"
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    log = [json.loads(line) for line in (out / "run" / "log.jsonl").read_text().splitlines()]
    config = TrainConfig(**read_config(TrainConfig, out / "run" / "config.toml"))
    assert len(log) == config.epochs >= 2
    assert report["clips"] == log[-1]["clips"] == config.epochs * config.clips_per_epoch
    assert (config.schedule, config.decay_epochs) == ("wsd", max(1, round(config.epochs / 4)))
    assert log[-1]["lr"] < max(row["lr"] for row in log) == config.lr  # it decays, in a few steps here
    assert [name for name in report if name in STEPS] == STEPS
    assert report["error"].keys() >= {"mse", "ssim"}
    assert report["sparse"] == "0 of 3 mask ratios"
    assert {"tests.txt", "sparse.txt", "report.json"} <= {file.name for file in out.iterdir()}
    (part,) = report["parts"]
    (out / "weights" / part).rename(out / "weights" / "model.safetensors")
    model = timm.create_model(f"local-dir:{out / 'weights'}", pretrained=True)
    assert model(torch.rand(1, 10, 1, 64, 64)).isfinite().all()


@pytest.mark.slow
def test_all_of_it_in_a_minute(tmp_path: Path) -> None:
    """With nothing replaced: what the other steps leave is enough to train in."""
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--minutes", "1", "--data-dir", SAMPLES, "--out",
               tmp_path / "out", "--device", "cpu", "--model", "plasm_mmnist_tiny"]  # fmt: skip
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True)
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert [name for name in report if name in STEPS] == STEPS
    assert report["clips"] > 0
    model = timm.create_model(f"local-dir:{tmp_path / 'out' / 'weights'}", pretrained=True)
    assert model(torch.rand(1, 10, 1, 64, 64)).isfinite().all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"--data-dir": "nowhere"}, "there is no folder nowhere"),
        ({"--model": "plasm_mnist"}, "do you mean plasm_mmnist"),
        ({"--model": "plasm_kth"}, "plasm_kth is not of Moving MNIST"),
        ({"--out": "."}, "--out . is there already"),
    ],
)
def test_what_the_training_would_stumble_over_is_refused_first(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], said: str
) -> None:
    for name in ("run_tests", "throughput", "sparse"):
        monkeypatch.setattr(gpu, name, lambda *_: pytest.fail("the time is being spent"))
    monkeypatch.chdir(tmp_path)
    options = {"--minutes": "1", "--data-dir": str(SAMPLES), "--out": "out", "--device": "cpu", **given}
    done = CliRunner().invoke(gpu.main, [part for pair in options.items() for part in pair])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_no_time_to_train_in_is_an_error(gpu: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give more --minutes"):
        gpu.train("gpu_small", str(SAMPLES), CPU, tmp_path, 0.0)


def test_throughput_is_written_row_by_row(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = gpu.measure
    left = tmp_path / "throughput_left_out.txt"

    def measure(models: list[str], **settings: Any) -> Any:
        # Whenever it is ended, the file is right.
        assert left.read_text(encoding="utf-8").splitlines()[-1].endswith(": no time was left")
        if models == ["memory"]:
            raise torch.OutOfMemoryError("none is left")
        return real(models, **settings)

    monkeypatch.setattr(gpu, "measure", measure)
    monkeypatch.setattr(gpu, "FIRST", ("memory", "gpu_small"))
    every = list(gpu.cases(CPU))
    assert {case["models"][0] for case in every} >= set(timm.list_models("*_mmnist_tiny"))
    monkeypatch.setattr(gpu, "cases", lambda device: [{**case, "batch_size": 1} for case in every[:2]])
    gpu.measure_cases(CPU, tmp_path, rounds=1)
    with (tmp_path / "throughput.csv").open() as stream:
        assert [row["mode"] for row in csv.DictReader(stream)] == ["inference", "training"]
    assert left.read_text(encoding="utf-8") == "memory, eager, torch.bfloat16, batch 1: none is left\n"


def no_cases(device: torch.device, out: Path) -> None:
    """A child that measures nothing."""
    (out / "throughput.csv").write_text("model\n", encoding="utf-8")
    (out / "throughput_left_out.txt").write_text("", encoding="utf-8")


def die(device: torch.device, out: Path) -> None:
    """A child that a crash ends."""
    os._exit(3)


@pytest.mark.parametrize(
    ("child", "end"), [(no_cases, "0 rows; 0 left out"), (die, "nothing in 60 s; ended by itself, exit status 3")]
)
def test_throughput_says_how_its_process_ended(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, child: Any, end: str
) -> None:
    monkeypatch.setattr(gpu, "measure_cases", child)
    assert gpu.throughput(CPU, tmp_path, 60.0) == end


@pytest.mark.parametrize(
    ("program", "seconds", "end"),
    [
        ("print('2 passed')", 60.0, "2 passed"),
        ("import sys; print('1 failed'); print('a warning', file=sys.stderr); sys.exit(1)", 60.0, "1 failed"),
        ("import sys; sys.exit('No module named pytest')", 60.0, "No module named pytest"),
        ("import sys; sys.exit(5)", 60.0, "nothing, exit status 5"),
        ("import time; print('..', flush=True); time.sleep(60)", 1.0, "stopped after 1 s"),
    ],
)
def test_the_tests_end_in_a_line(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, seconds: float, end: str
) -> None:
    limited = gpu.run_limited
    asked: list[str] = []

    def run_limited(command: list[str], seconds: float) -> Any:
        asked.extend(command)
        return limited([sys.executable, "-S", "-c", program], seconds)

    monkeypatch.setattr(gpu, "run_limited", run_limited)
    assert gpu.run_tests(CPU, tmp_path, seconds) == end
    assert (tmp_path / "tests.txt").is_file()
    assert str(ROOT / "tests" / "layers" / "test_sparse.py") in asked


def test_a_mask_ratio_that_failed_is_not_counted(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = iter([(0, "fast", ""), (1, "", "Traceback"), (None, "", "stopped after 1 s")])
    monkeypatch.setattr(gpu, "run_limited", lambda *_: next(ends))
    assert gpu.sparse(CPU, tmp_path, 3.0) == "1 of 3 mask ratios"
    assert "Traceback" in (tmp_path / "sparse.txt").read_text(encoding="utf-8")


def test_each_result_is_there_as_soon_as_it_is_known(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("run_tests", "throughput", "sparse"):
        monkeypatch.setattr(gpu, name, lambda *_: "done")

    def train(*_: Any) -> Path:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(gpu, "train", train)
    out = tmp_path / "out"
    command = ["--minutes", "1", "--data-dir", str(SAMPLES), "--out", str(out), "--device", "cpu"]
    with pytest.raises(RuntimeError, match="the device is gone"):
        CliRunner().invoke(gpu.main, command, catch_exceptions=False)
    report = json.loads((out / "report.json").read_text())
    assert (report["tests"], report["throughput"], report["sparse"], report["device"]) == ("done",) * 3 + ("cpu",)
