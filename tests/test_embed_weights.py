"""tools/embed_weights.py: the row that it puts into the manifest."""

import importlib
import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from plasm import weights
from plasm.runs import TrainConfig
from plasm.weights import manifest


def test_a_row_that_came_while_the_weights_were_measured_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "tools"))
    script, file = importlib.import_module("embed_weights"), tmp_path / "manifest.json"
    first, *others = (asdict(row) for row in weights.entries())
    monkeypatch.setattr(script, "FOLDER", tmp_path)
    monkeypatch.setattr(manifest, "FOLDER", tmp_path)
    file.write_text(json.dumps([first]), encoding="utf-8")
    weights.save_tensors({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    config = TrainConfig(model="tau_mmnist_tiny", data="mmnist", data_dir="d", out="o")
    runs = [{**asdict(config), "command": "train", "clips": 20_000}]
    monkeypatch.setattr(script, "read_history", lambda _: runs)

    def measure(*_: Any) -> Any:
        # Of another process, which measures for as long: both had read the manifest before.
        file.write_text(json.dumps([first, others[0]]), encoding="utf-8")
        return SimpleNamespace(means=dict.fromkeys(first["metrics"], 1.0), per_frame={})

    monkeypatch.setattr(script, "measure", measure)
    weights.entries.cache_clear()
    try:
        CliRunner().invoke(script.main, [str(tmp_path), "new", "--data-dir", "d"], catch_exceptions=False)
    finally:
        weights.entries.cache_clear()
    rows = [(row["model"], row["tag"]) for row in json.loads(file.read_text(encoding="utf-8"))]
    assert rows == [*((row["model"], row["tag"]) for row in (first, others[0])), ("tau_mmnist_tiny", "new")]
