import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner, Result
from PIL import Image

from plasm import training, weights
from plasm.cli import main

SMALL = ["encoder_dim=8", "translator_dim=16", "translator_depth=1"]
SHORT = ["--epochs", "1", "--clips-per-epoch", "8", "--batch-size", "4", "--val-clips", "2", "--device", "cpu"]
SHORT += [part for item in SMALL for part in ("--model-arg", item)]


def plasm(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def ok(*arguments: object) -> str:
    result = plasm(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def fails(*arguments: object) -> str:
    result = plasm(*arguments)
    assert result.exit_code == 1, result.output
    assert result.output.startswith("Error: ")
    assert "Traceback" not in result.output
    return result.output


def table_of(output: str) -> dict[str, list[float]]:
    """Rows of the metrics: MSE, MAE, SSIM, SSIM (published), PSNR."""
    rows = {}
    for line in output.splitlines():
        for name in ("model", "black", "last frame"):
            if line.startswith(name):
                rows[name] = [float(value) for value in line[len(name) :].split()]
    return rows


def test_predict_without_arguments_beats_the_trivial_forecasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = table_of(ok("predict"))
    for trivial in ("black", "last frame"):
        assert table["model"][0] < table[trivial][0]  # MSE
        assert table["model"][4] > table[trivial][4]  # PSNR
    assert sorted(file.name for file in (tmp_path / "predictions").iterdir()) == [
        "prediction.gif", "prediction.npy", "prediction.png",
    ]  # fmt: skip
    assert np.load(tmp_path / "predictions" / "prediction.npy").shape == (8, 10, 1, 64, 64)
    with Image.open(tmp_path / "predictions" / "prediction.gif") as image:
        assert image.n_frames == 20


def test_both_phases_evaluation_and_prediction(sample_root: Path, tmp_path: Path) -> None:
    common = ["--model", "plasm_mmnist_tiny", "--data", "mmnist", "--data-dir", sample_root, *SHORT]
    ok("pretrain", *common, "--out", tmp_path / "one")
    ok("train", *common, "--init", tmp_path / "one", "--out", tmp_path / "two")
    saved = json.loads((tmp_path / "two" / "run.json").read_text())
    assert saved["init"] == str(tmp_path / "one")
    assert saved["model_args"] == {"encoder_dim": 8, "translator_dim": 16, "translator_depth": 1}
    out = ok(
        "evaluate", "--model", "plasm_mmnist_tiny", "--weights", tmp_path / "two", "--data", "mmnist",
        "--data-dir", sample_root, "--num-clips", 4, "--per-frame",
    )  # fmt: skip
    assert "4 test clips of mmnist, 10 -> 10 frames" in out
    assert len(table_of(out)) == 3
    assert [line.split()[0] for line in out.splitlines()[-10:]] == [str(n) for n in range(1, 11)]
    clip = np.random.default_rng(0).integers(0, 256, (12, 64, 64), dtype=np.uint8)
    np.save(tmp_path / "clip.npy", clip)
    out = ok(
        "predict", "--weights", tmp_path / "two", "--input", tmp_path / "clip.npy", "--frames", 15,
        "--out", tmp_path / "p",
    )  # fmt: skip
    assert "10 -> 15 frames" in out
    model = timm.create_model(f"local-dir:{tmp_path / 'two'}", pretrained=True)
    expected = model.predict(torch.from_numpy(clip[2:]).view(1, 10, 1, 64, 64).float() / 255, 15)
    np.testing.assert_allclose(np.load(tmp_path / "p" / "prediction.npy"), expected.numpy(), atol=1e-5)


def test_a_clip_long_enough_is_split_into_input_and_truth(tmp_path: Path) -> None:
    clip = np.random.default_rng(0).integers(0, 256, (13, 64, 64), dtype=np.uint8)
    np.save(tmp_path / "clip.npy", clip)
    table = table_of(ok("predict", "--input", tmp_path / "clip.npy", "--frames", 3, "--out", tmp_path / "p"))
    last, truth = clip[9] / 255, clip[10:] / 255
    assert table["last frame"][0] == pytest.approx(((truth - last) ** 2).sum((1, 2)).mean(), abs=0.01)


def test_list_prints_every_model() -> None:
    lines = ok("list").splitlines()
    assert len(lines) == 7
    row = next(line.split() for line in lines if line.startswith("plasm_mmnist "))
    assert row[1:5] == ["19.00", "M", "7.75", "G"]
    tags = ", ".join(weights.tags("plasm_mmnist_tiny"))
    assert tags
    assert next(line for line in lines if line.startswith("plasm_mmnist_tiny")).endswith(tags)


@pytest.mark.parametrize(
    ("command", "config"), [("pretrain", training.PretrainConfig), ("train", training.TrainConfig)]
)
def test_every_field_of_the_config_is_an_option_with_help(command: str, config: type) -> None:
    text = " ".join(ok(command, "--help").split())
    for field in fields(config):
        option = "--model-arg" if field.name == "model_args" else "--" + field.name.replace("_", "-")
        assert option in text
        assert field.metadata["help"].split(".")[0].split(":")[0] in text


def test_options_over_the_papers_defaults_over_the_records(
    sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[training.TrainConfig] = []
    monkeypatch.setattr(training, "run", seen.append)
    common = ["train", "--model", "plasm_taxibj", "--data", "mmnist", "--data-dir", sample_root, "--out", tmp_path]
    ok(*common, "--epochs", 3, "--no-bf16", "--model-arg", "attention=none", "--model-arg", "num_heads=4")
    config = seen[0]
    assert (config.epochs, config.lr, config.schedule, config.batch_size) == (3, 0.001, "cosine", 16)
    assert (config.bf16, config.freeze_encoder, config.init) == (False, None, None)
    assert config.model_args == {"attention": "none", "num_heads": 4}
    ok(*common, "--no-freeze-encoder")
    assert seen[1].freeze_encoder is False


def test_what_a_user_can_mend_is_one_clear_line(tmp_path: Path, sample_root: Path) -> None:
    assert "no weights are published for plasm_kth" in fails("predict", "--model", "plasm_kth", "--out", tmp_path)
    np.save(tmp_path / "short.npy", np.zeros((5, 64, 64), np.uint8))
    assert "5 frames; the model needs 10" in fails("predict", "--input", tmp_path / "short.npy", "--out", tmp_path)
    assert "none.npy" in fails("predict", "--input", tmp_path / "none.npy", "--out", tmp_path)
    assert "is not a run" in fails("evaluate", "--weights", tmp_path, "--data-dir", sample_root)
    common = ["train", "--model", "plasm_mmnist_tiny", "--data-dir", sample_root, "--out", tmp_path / "run"]
    assert "'nope'" in fails(*common, "--data", "nope")
    assert "heads must divide" in fails(*common, "--data", "mmnist", "--model-arg", "num_heads=7")
    assert "no_such_argument" in fails(*common, "--data", "mmnist", "--model-arg", "no_such_argument=7")
    assert "NAME=VALUE" in fails(*common, "--data", "mmnist", "--model-arg", "num_heads")
    assert "no model is called 'plasm_nope'" in fails(*common, "--data", "mmnist", "--model", "plasm_nope")
    assert not (tmp_path / "run").exists()


def test_python_m_plasm_is_the_command() -> None:
    out = subprocess.run([sys.executable, "-m", "plasm", "--help"], capture_output=True, text=True, check=True).stdout
    for command in ("evaluate", "list", "predict", "pretrain", "train"):
        assert command in out
    assert "Usage: plasm" in out
