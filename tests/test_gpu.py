"""benchmarks/gpu.py, which has ten minutes on somebody's GPU and no second try, on a CPU."""

import csv
import importlib
import json
import subprocess
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


def test_training_ends_in_time_with_its_decay(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "VAL_CLIPS", 2)
    monkeypatch.setattr(gpu, "TEST_CLIPS", 2)
    folder = gpu.train("gpu_small", str(SAMPLES), CPU, tmp_path, 4.0, batch_size=2)
    config = TrainConfig(**read_config(TrainConfig, folder / "config.toml"))
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert len(log) == config.epochs >= 2
    assert (config.schedule, config.decay_epochs) == ("wsd", max(1, round(config.epochs / 4)))
    weights = gpu.export("plasm_mmnist_tiny", folder, tmp_path)  # as its config.json says
    assert set(gpu.error("plasm_mmnist_tiny", weights, str(SAMPLES), CPU)) >= {"mse", "ssim"}
    model = timm.create_model(f"local-dir:{weights}", pretrained=True)
    assert model(torch.rand(1, 10, 1, 64, 64)).isfinite().all()


def test_throughput_is_written_row_by_row_until_the_time_is_spent(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = gpu.measure

    def measure(models: list[str], **settings: Any) -> Any:
        if models == ["memory"]:
            raise torch.OutOfMemoryError("none is left")
        return real(models, **settings)

    monkeypatch.setattr(gpu, "measure", measure)
    monkeypatch.setattr(gpu, "MODELS", ("gpu_small", "memory"))
    monkeypatch.setattr(gpu, "PAPERS", ())
    every = list(gpu.cases(CPU))
    monkeypatch.setattr(gpu, "cases", lambda device: [{**case, "batch_size": 1} for case in every[:2]])
    assert gpu.throughput(CPU, tmp_path, 60.0, rounds=1) == "2 rows; 1 left out"
    with (tmp_path / "throughput.csv").open() as stream:
        assert [row["mode"] for row in csv.DictReader(stream)] == ["inference", "training"]
    assert (
        tmp_path / "throughput_left_out.txt"
    ).read_text() == "memory, eager, torch.bfloat16, batch 1: none is left\n"
    assert gpu.throughput(CPU, tmp_path, -1.0) == "0 rows; 2 left out"


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
