import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torchvision
from commands import fails, ok
from safetensors.torch import save_file

from plasm import evaluation, weights
from plasm.evaluation import command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = timm.create_model("plasm_mmnist", encoder_dim=4, translator_dim=8, translator_depth=1)
    weights.save_pretrained(model, tmp_path / "w")
    return tmp_path / "w"


def test_a_library_call_does_what_the_command_does(folder: Path, sample_root: Path) -> None:
    config = evaluation.EvaluateConfig(weights=str(folder), data_dir=str(sample_root), num_clips=2, frames=3)
    done = evaluation.run(config)
    assert done is not None
    assert done.metrics.keys() == {"model", "black", "last frame"}
    assert (done.in_frames, done.out_frames, done.frame_values) == (10, 3, 64 * 64)
    assert done.frames_per_second > 0
    assert done.file == folder / "metrics.json"
    written = json.loads(done.file.read_text(encoding="utf-8"))
    assert written["metrics"] == {name: metrics.means for name, metrics in done.metrics.items()}
    assert written["num_clips"] == 2
    assert written["options"] == "--data mmnist --data-dir DIR --frames 3 --num-clips 2"
    assert written["sha256"] == weights.file_sha256(folder / "model.safetensors")


def test_published_scores_and_lpips_stand_under_their_names(folder: Path, sample_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("lpips")
    file = tmp_path / "alexnet.safetensors"
    save_file(torchvision.models.AlexNet().features.state_dict(prefix="features."), file)
    command_line = ["evaluate", "--weights", folder, "--data-dir", sample_root, "--num-clips", 1, "--published"]
    lines = ok(*command_line, "--lpips", file).splitlines()
    titles, others = (line for line in lines if "SSIM" in line)
    assert titles.split()[-1] == "LPIPS"
    assert re.split(r"  +", others.strip()) == [
        "MSE (PredRNN)", "SSIM (PredRNN)", "PSNR (PredRNN)", "SSIM (SimVP)", "PSNR (SimVP)",
    ]  # fmt: skip
    written = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert written["options"] == "--data mmnist --data-dir DIR --published --lpips FILE --num-clips 1"
    means = written["metrics"]["model"]
    assert means.keys() >= {"mse_predrnn", "ssim_predrnn", "psnr_predrnn", "psnr_simvp", "ssim_published", "lpips"}
    assert f"{means['lpips']:.4f}" in lines[lines.index(titles) + 1]
    assert "none.pth" in fails(*command_line, "--lpips", tmp_path / "none.pth")


@pytest.mark.parametrize("back", [False, True])
def test_weights_that_change_while_they_are_loaded_are_not_measured(
    back: bool, folder: Path, sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = timm.create_model("plasm_mmnist", encoder_dim=4, translator_dim=8, translator_depth=1)
    weights.save_pretrained(other, tmp_path / "other")
    load = command.load_model

    file, theirs = folder / "model.safetensors", tmp_path / "other" / "model.safetensors"
    ours = shutil.copyfile(file, tmp_path / "ours")
    # Without a sha256 beside them, nothing else tells.
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config.pop("weights")["sha256"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")

    def load_late(*args: object, **kwargs: object) -> object:
        if back:
            shutil.copyfile(theirs, file)
        model = load(*args, **kwargs)
        shutil.copyfile(ours if back else theirs, file)
        return model

    monkeypatch.setattr(command, "load_model", load_late)
    with pytest.raises(OSError, match="changed while it was loaded"):
        evaluation.run(evaluation.EvaluateConfig(weights=str(folder), data_dir=str(sample_root), num_clips=2))
    assert not (folder / "metrics.json").exists()


def test_the_command_that_is_written_down_can_be_given_to_a_shell() -> None:
    given = {"size": (48, 64), "axes": "TYX", "array": "a b/c d"}
    config = evaluation.EvaluateConfig(data="clips", data_dir="x", num_clips=5, data_args=given)
    words = shlex.split(command._options(config))
    assert [word for word in words if "=" in word] == ["size=(48, 64)", "axes=TYX", "array=c d"]


def test_clips_of_other_channels_are_refused_by_what_mends_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for number in range(3):
        np.save(tmp_path / "clips" / f"{number}.npy", np.zeros((20, 16, 16), np.uint8))
    message = fails("evaluate", "--weights", folder, "--data", "clips", "--data-dir", tmp_path / "clips")
    assert "clips has clips of 3 channel(s), the model takes 1" in message
    assert "--data-arg channels=1" in message
    assert "in_chans" not in message


def test_radar_is_refused_where_clips_are_measured() -> None:
    with pytest.raises(ValueError, match=r"plasm\.rain\.run"):
        evaluation.run(evaluation.EvaluateConfig(data="radar", data_dir="x"))
