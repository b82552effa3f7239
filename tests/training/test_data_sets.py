"""Both phases on each data set of the paper, from small files in the formats they come in."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from timm.models import register_model
from torch import nn
from video_files import frames, write_images, write_kth, write_seq, write_taxibj

from plasm.cli import main
from plasm.data import register_dataset

SMALL = ["encoder_dim=4", "translator_dim=8", "translator_depth=1"]


def create_kth(root: Path) -> None:
    write_kth(root, {f"person{person}_boxing_d1": 31 for person in ("01", "02", "03", "17")})
    run("data", "prepare", "kth", "--data-dir", root)


def create_human36m(root: Path) -> None:
    for subject in (1, 5, 6, 9):
        write_images(root / "images", frames(41, 24, 24), f"S{subject}_Walking.54138969_{{:06d}}.jpg")


def create_kitticaltech(root: Path) -> None:
    for drive in range(3):
        write_images(root / f"2011_09_26_drive_{drive:04d}_sync" / "image_03" / "data", frames(11, 37, 124))
    write_seq(root / "caltech" / "set06" / "V000.seq", frames(33, 48, 64))


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    ("name", "make", "options", "clip", "columns"),
    [
        ("taxibj", write_taxibj, ["--data-arg", "val_days=4"], "4 -> 4", "MSE x100"),
        ("kth", create_kth, [], "10 -> 20", "MSE"),
        ("human36m", create_human36m, [], "4 -> 4", "MSE x0.1"),
        ("kitticaltech", create_kitticaltech, [], "10 -> 1", "MSE x1000 (mean)"),
    ],
)
def test_both_phases_and_evaluation(
    tmp_path: Path, name: str, make: Callable[[Path], None], options: list[str], clip: str, columns: str
) -> None:
    make(tmp_path)
    model = "plasm_caltech" if name == "kitticaltech" else f"plasm_{name}"
    heads = ["--model-arg", "num_heads=2"]
    common = ["--model", model, "--data", name, "--data-dir", tmp_path, *options, *heads]
    common += [part for item in SMALL for part in ("--model-arg", item)]
    common += ["--epochs", 1, "--batch-size", 2, "--clips-per-epoch", 2, "--val-clips", 1, "--device", "cpu"]
    run("pretrain", *common, "--out", tmp_path / "one")
    run("train", *common, "--init", tmp_path / "one", "--out", tmp_path / "two")
    for phase in ("one", "two"):
        assert (tmp_path / phase / "samples" / "epoch_0001.png").is_file()
    out = run(
        "evaluate", "--weights", tmp_path / "two", "--data", name, "--data-dir", tmp_path, *options, "--num-clips", 1,
        "--per-frame", "--published",
    )  # fmt: skip
    assert f"1 test clips of {name}, {clip} frames" in out
    assert columns in [column.strip() for column in out.splitlines()[1].split("  ")]
    assert re.search(r"the model predicted [\d,.]+ frames a second on cpu, 10 clips at a time", out)
    # Frame by frame in the same units: the mean of a column is what stands above.
    head, *frames = out.split("\n\n")[1].splitlines()[: int(clip.split()[-1]) + 1]
    assert head.split("  ")[0] == "frame"
    titles = [column.strip() for column in head.split("  ")]
    assert columns in titles
    assert columns.replace("MSE", "MSE (PredRNN)") in titles
    mean = sum(float(line.split()[1]) for line in frames) / len(frames)
    assert mean == pytest.approx(float(out.splitlines()[2].split()[1]), abs=0.01)
    if name == "kitticaltech":
        # Table III: a thousand times the mean over 128 x 160 pixels of 3 channels.
        measured = json.loads((tmp_path / "two" / "metrics.json").read_text(encoding="utf-8"))["metrics"]
        expected = f"{measured['model']['mse'] / (3 * 128 * 160) * 1000:.2f}"
        assert out.splitlines()[2].split()[1] == expected


def test_a_data_set_that_does_not_fit_the_model_is_an_early_error(tmp_path: Path) -> None:
    write_taxibj(tmp_path)
    common = [
        "train",
        "--data",
        "taxibj",
        "--data-dir",
        tmp_path,
        "--data-arg",
        "val_days=4",
        "--out",
        tmp_path / "run",
    ]
    common += [part for item in SMALL for part in ("--model-arg", item)]
    result = CliRunner().invoke(main, [str(a) for a in (*common, "--model", "plasm_mmnist")])
    assert "taxibj has clips of 2 channel(s), plasm_mmnist takes 1: --model-arg in_chans=2" in result.output
    result = CliRunner().invoke(
        main,
        [str(a) for a in (*common, "--model", "plasm_mmnist", "--batch-size", 5000, "--clips-per-epoch", 5000)],
    )
    assert "training clips, fewer than a batch of 5000" in result.output
    assert not (tmp_path / "run").exists()


class Gray(nn.Module):
    """A model of its user's own, that takes gray clips alone."""

    in_chans, in_frames, out_frames = 1, 4, 4

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return self.conv(clip.flatten(0, 1)).unflatten(0, clip.shape[:2])


@register_model
def gray_alone(pretrained: bool = False, **kwargs: Any) -> Gray:
    return Gray()


def test_channels_are_not_advised_of_a_model_that_has_no_such_argument(tmp_path: Path) -> None:
    write_taxibj(tmp_path)
    result = CliRunner().invoke(
        main,
        ["train", "--model", "gray_alone", "--data", "taxibj", "--data-dir", str(tmp_path), "--data-arg", "val_days=4",
         "--out", str(tmp_path / "run")],
    )  # fmt: skip
    assert result.exit_code == 1
    assert "2 channel(s), gray_alone takes 1: no argument of the model changes that; give an option" in result.output


@register_dataset("odd_clips")
def odd_clips(root: Path, split: str, *, num_frames: int, kind: str = "") -> Any:
    clip = torch.rand(num_frames, 1, 16, 16)
    clips = {
        "float64": clip.double(), "uint8": (255 * clip).byte(), "array": clip.numpy(), "pair": (clip, 0),
        "large": 255 * clip, "gray": clip[:, 0],
    }  # fmt: skip
    return [clips[kind]] * 16


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("float64", "list gives float64 of shape (20, 1, 16, 16): a clip is a tensor of float32"),
        ("uint8", "list gives uint8 of shape"),
        ("array", "list gives a ndarray"),
        ("pair", "list gives a tuple"),
        ("large", "divide by 255?"),
        (
            "gray",
            "list gives float32 of shape (20, 16, 16): a clip is a tensor of float32, (T + T', C, H, W), in [0, 1]",
        ),
    ],
)
def test_a_users_clips_that_are_none_are_told_what_clips_are(kind: str, reason: str, tmp_path: Path) -> None:
    data = ["--data", "odd_clips", "--data-dir", tmp_path, "--data-arg", f"kind={kind}", "--batch-size", 2]
    data += ["--model", "convlstm_mmnist_tiny"]
    train = ["train", *data, "--out", tmp_path / "run", "--epochs", 1, "--clips-per-epoch", 2, "--val-clips", 1]
    for command in (train, ["evaluate", *data, "--num-clips", 1]):
        result = CliRunner().invoke(main, [*map(str, command), "--device", "cpu"])
        assert result.exit_code == 1
        assert reason in result.output, result.output
    assert not (tmp_path / "run" / "config.toml").exists()
