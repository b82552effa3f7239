import csv
from pathlib import Path
from unittest.mock import Mock

import pytest
from commands import fails, ok

from plasm import benchmark

SMALL = ["encoder_dim=4", "translator_dim=16", "translator_depth=2", "encoder_depth=2"]
ARGUMENTS = [part for item in SMALL for part in ("--model-arg", item)]


def test_the_command_measures_models_in_both_modes(tmp_path: Path) -> None:
    out = ok(
        "benchmark", "simvp_mmnist", "tau_mmnist", "--train", "--rounds", 2, "--batch-size", 1, "--device", "cpu",
        "--out", tmp_path / "b", *ARGUMENTS,
    )  # fmt: skip
    with (tmp_path / "b" / "benchmark.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["mode"]) for row in rows] == [
        (model, mode) for model in ("simvp_mmnist", "tau_mmnist") for mode in ("inference", "training")
    ]
    for row in rows:
        assert 0 < float(row["lowest"]) <= float(row["clips_per_second"]) <= float(row["highest"])
        assert float(row["frames_per_second"]) == pytest.approx(10 * float(row["clips_per_second"]))
        assert 0 < float(row["peak_ratio"]) < 2
    # The activations that a backward pass needs are kept.
    assert int(rows[1]["peak_memory"]) > int(rows[0]["peak_memory"]) > 0
    table = (tmp_path / "b" / "benchmark.md").read_text(encoding="utf-8")
    assert table in out
    assert "| 32.15" in table
    assert "| 21.15" in table
    assert (tmp_path / "b" / "benchmark.png").read_bytes().startswith(b"\x89PNG")


def test_models_are_named_by_patterns_too_each_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measure = Mock(side_effect=MemoryError)
    monkeypatch.setattr("plasm.benchmark.command.measure", measure)
    for models in (["tau_m*", "tau_mmnist", "stam_kth"], []):
        with pytest.raises(MemoryError):
            benchmark.run(models, device="cpu", out=tmp_path)
    first, default = (call.args[0] for call in measure.call_args_list)
    assert first == ["tau_mmnist", "tau_mmnist_tiny", "stam_kth"]
    assert len(default) == 25
    assert all(name.endswith("_mmnist") for name in default)


def test_what_cannot_be_written_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measure = Mock()
    monkeypatch.setattr("plasm.benchmark.command.measure", measure)
    (tmp_path / "b").write_text("a file")
    for out in (tmp_path / "b", tmp_path / "b" / "c.csv"):
        with pytest.raises(NotADirectoryError):
            benchmark.run(["tau_mmnist"], device="cpu", out=out)
    measure.assert_not_called()


def test_what_cannot_be_measured_is_an_error(tmp_path: Path) -> None:
    assert "such as 1,2, got '1,x'" in fails("benchmark", "tau_mmnist", "--threads", "1,x", "--out", tmp_path)
    assert "no model of plasm is called resnet18" in fails("benchmark", "resnet18", "--out", tmp_path)
    assert "must be positive" in fails("benchmark", "tau_mmnist", "--rounds", 0, "--out", tmp_path)
    with pytest.raises(ValueError, match="runtime is one of eager, compile"):
        benchmark.run(["tau_mmnist"], device="cpu", runtime="none", out=tmp_path)
