"""The models and data sets of docs/own.md, as the page gives them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from plasm import training, weights
from plasm.models import create_model

PAGE = Path(__file__).parents[2] / "docs" / "own.md"


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A folder with the page's modules."""
    net, task, data, family = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "my_family.py").write_text(family, encoding="utf-8")
    (tmp_path / "my_task.py").write_text(task, encoding="utf-8")
    (tmp_path / "my_net.py").write_text(net)
    (tmp_path / "my_data.py").write_text(data)
    return tmp_path


SCRIPT = """
import sys
from plasm import cli
for line in open(sys.argv[1]):
    cli.main(line.split(), prog_name="plasm", standalone_mode=False)
"""


def test_both_phases_evaluation_and_prediction_from_the_folder_with_the_modules(modules: Path) -> None:
    common = "--data my_data:bars --data-dir . --epochs 2 --clips-per-epoch 16 --batch-size 4 --val-clips 3"
    (modules / "commands").write_text(
        f"pretrain --model my_net:my_net {common} --out one --mask-ratio 0.5\n"
        f"train --model my_net:my_net {common} --init one --out two\n"
        f"train --model my_task:my_mixer {common} --out three --task-arg change_weight=0.5\n"
        "evaluate --model my_net:my_net --weights two --data my_data:bars --data-dir . --num-clips 5\n"
        "predict --model my_net:my_net --weights two --input clip.npy --frames 7 --out future\n"
    )
    np.save(modules / "clip.npy", np.zeros((17, 32, 32), np.uint8))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "commands"], cwd=modules, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "5 test clips of my_data:bars, 10 -> 10 frames" in done.stdout
    assert "1 clip(s), 10 -> 7 frames" in done.stdout
    assert np.load(modules / "future" / "prediction.npy").shape == (1, 7, 1, 32, 32)
    log = [json.loads(line) for line in (modules / "three" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert log[0]["loss"] > log[-1]["loss"] > 0
    for row in log:
        assert row["loss"] == pytest.approx(row["loss_l1"] + row["loss_change"])
    config = json.loads((modules / "two" / "config.json").read_text())
    assert config["architecture"] == "my_net"
    log = [json.loads(line) for line in (modules / "two" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"]


@pytest.mark.parametrize("name", ["hf-hub:someone/model", "local-dir:runs/one"])
def test_weights_are_no_constructor_to_train(name: str) -> None:
    with pytest.raises(ValueError, match=f"give --init {name.partition(':')[2]}"):
        training.model_defaults(training.TrainConfig, name)


def test_a_family_says_all_of_itself(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(modules)
    model: Any = create_model("my_family:frame_mixer_mmnist")
    clip = torch.rand(2, 10, 1, 5, 7)
    torch.testing.assert_close(model(clip)[:, 3, 0], (model.mix.weight[3] * clip[:, :, 0]).sum(1) + model.mix.bias[3])
    for name in ("frame_mixer_mmnist", "my_family:frame_mixer_mmnist"):
        assert training.model_defaults(training.TrainConfig, name) == {"epochs": 20, "lr": 0.001}
    weights.save_pretrained(model, modules / "saved")
    assert "@misc{mixtures" in (modules / "saved" / "README.md").read_text(encoding="utf-8")
    other = timm.create_model(f"local-dir:{modules / 'saved'}", pretrained=True, in_frames=12, out_frames=3)
    seen = torch.rand(2, 12, 1, 5, 7)
    torch.testing.assert_close(other(seen), model(seen[:, 2:])[:, :3])
    assert other.predict(seen, 8).shape == (2, 8, 1, 5, 7)
