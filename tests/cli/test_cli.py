import errno
import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from click.shell_completion import ShellComplete
from commands import fails, ok
from PIL import Image, ImageDraw
from video_files import frames, write_images, write_video

from plasm import evaluation, prediction, training, weights
from plasm.cli import main
from plasm.cli.options import pairs
from plasm.config import read_config
from plasm.data import SAMPLES, open_source, read_clips
from plasm.pictures import movie
from plasm.runs import publishing

SMALL = ["encoder_dim=8", "translator_dim=16", "translator_depth=1"]
SHORT = ["--epochs", "1", "--clips-per-epoch", "8", "--batch-size", "4", "--val-clips", "2", "--device", "cpu"]
SHORT += [part for item in SMALL for part in ("--model-arg", item)]


def table_of(output: str) -> dict[str, list[float]]:
    """Rows of the metrics: MSE, MAE, SSIM, SSIM (published), PSNR."""
    rows = {}
    for line in output.splitlines():
        for name in ("model", "black", "last frame"):
            if line.startswith(name):
                rows[name] = [float(value) for value in line[len(name) :].split()]
    return rows


def test_predict_without_arguments_beats_the_baselines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = table_of(ok("predict"))
    for baseline in ("black", "last frame"):
        assert table["model"][0] < table[baseline][0]  # MSE
        assert table["model"][4] > table[baseline][4]  # PSNR
    assert sorted(file.name for file in (tmp_path / "predictions").iterdir()) == [
        "prediction.gif", "prediction.npy", "prediction.png",
    ]  # fmt: skip
    assert np.load(tmp_path / "predictions" / "prediction.npy").shape == (8, 10, 1, 64, 64)
    with Image.open(tmp_path / "predictions" / "prediction.gif") as image:
        assert image.n_frames == 20


def test_models_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each forecast is that of the model alone, and stands in the pictures with its error in that clip."""
    written: list[str] = []
    text = ImageDraw.ImageDraw.text

    def write(drawing: ImageDraw.ImageDraw, place: Any, line: str, *more: Any, **named: Any) -> None:
        written.append(line)
        text(drawing, place, line, *more, **named)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", write)
    out = tmp_path / "out"
    given = ["plasm_mmnist_tiny", "convlstm_mmnist_tiny"]
    names = ["plasm_mmnist_tiny.mmnist_v7", "convlstm_mmnist_tiny.league"]
    printed = ok("predict", "--model", given[0], "--model", f"{given[1]},{names[0]}", "--out", out)
    # Whose weights: those of two models may have seen different numbers of clips.
    assert f"predicted by {', '.join(names)}\n" in printed
    rows = {line.split()[0]: line.split()[1] for line in printed.splitlines() if line.startswith(tuple(names))}
    assert rows[names[0]] == "47.90"
    assert sorted(file.name for file in out.iterdir()) == sorted(
        ["comparison.gif", "comparison.png", *(f"{name}.npy" for name in names)]
    )
    ok("predict", "--out", tmp_path / "one")
    np.testing.assert_array_equal(np.load(out / f"{names[0]}.npy"), np.load(tmp_path / "one" / "prediction.npy"))
    with Image.open(out / "comparison.gif") as image:
        assert image.n_frames == 20
    with np.load(SAMPLES / "clips.npz") as stored:
        truth = stored["clips"][:, 10:] / 255.0
    errors = np.square(np.load(out / f"{names[0]}.npy") - truth).sum((2, 3, 4)).mean(1)
    # Of Pillow's older versions, each line of a text is a text, too.
    told = [line.replace("\n", ", ") for line in written if line.startswith(names[0]) and "MSE" in line]
    # Each clip's in the picture, the first one's in each frame of the animation.
    assert told == [f"{names[0]}, MSE {error:.1f}" for error in (*errors, *[errors[0]] * 20)]
    assert float(rows[names[0]]) == pytest.approx(errors.mean(), abs=0.006)
    assert "trained on 48,000 clips of Moving MNIST: convlstm_mmnist_tiny.league\n" in printed
    assert "trained on 1,597,696 clips of Moving MNIST: plasm_mmnist_tiny.mmnist_v7\n" in printed
    message = fails("predict", "--model", ",".join(names), "--weights", "RUN", "--out", out)
    assert "--weights are of one model" in message
    message = fails("predict", "--model", ",".join(names), "--out", tmp_path / "two.gif")
    assert "2 models are written into a folder, not as a video" in message
    message = fails("predict", "--model", f"{names[0]},hf-hub:someone/model", "--out", tmp_path / "two")
    assert "no weights are published for hf-hub:someone/model" in message
    np.save(tmp_path / "wide.npy", np.zeros((20, 32, 48), np.uint8))
    given = ["--model", "tau_mmnist_tiny,mim_mmnist_tiny", "--input", tmp_path / "wide.npy"]
    assert "of 32 x 48: --size 64 64 brings them to its size" in fails("predict", *given, "--out", tmp_path / "two")
    assert not (tmp_path / "two").exists()


def test_names_of_models_to_predict_with(caplog: pytest.LogCaptureFixture) -> None:
    assert prediction.named_models(None) == []
    assert prediction.named_models(" hf-hub:someone/model ") == ["hf-hub:someone/model"]
    assert prediction.named_models("plasm_*_tin?") == ["plasm_mmnist_tiny"]
    # A dot: of the published weights, not of models.
    assert prediction.named_models("plasm_*.leag?e") == ["plasm_mmnist_tiny.league"]
    # Of radar, or of others: no clip is an input of both.
    assert prediction.named_models("plasm*") == ["plasm_mmnist_tiny"]
    assert prediction.named_models("*", radar=True) == ["plasm_radar"]
    several = prediction.named_models("tau_mmnist_tiny, plasm_mmnist_tiny")
    assert several == ["tau_mmnist_tiny.league", "plasm_mmnist_tiny.mmnist_v7"]
    assert not caplog.messages
    assert prediction.named_models("tau_mmnist_tiny,tau_mmnist_tiny.league") == ["tau_mmnist_tiny.league"]
    assert caplog.messages == [
        "tau_mmnist_tiny and tau_mmnist_tiny.league are the same weights: there is nothing to compare"
    ]
    for text in ("", "tau_mmnist_tiny,"):
        with pytest.raises(ValueError, match="--model has an empty name"):
            prediction.named_models(text)
    with pytest.raises(ValueError, match=r"no model of clips with published weights is called 'x\*'"):
        prediction.named_models("x*")
    with pytest.raises(weights.WeightsNotFoundError, match="do you mean predrnn_mmnist_tiny"):
        prediction.named_models("tau_mmnist_tiny,predrn_mmnist_tiny")


def test_only_forecasts_of_the_same_clips_compare() -> None:
    nets = {name: timm.create_model("plasm_mmnist_tiny", **args) for name, args in
            (("one", {}), ("two", {"in_frames": 3}), ("three", {"out_frames": 4}))}  # fmt: skip
    with pytest.raises(ValueError, match=r"one takes 10 frames of 1 channel\(s\), two takes 3 frames"):
        prediction._common_counts(nets, None)
    del nets["two"]
    with pytest.raises(ValueError, match="one forecasts 10 frames and three 4: say with --frames"):
        prediction._common_counts(nets, None)
    assert prediction._common_counts(nets, 6) == (10, 6)


def test_both_phases_evaluation_and_prediction(sample_root: Path, tmp_path: Path) -> None:
    common = ["--model", "plasm_mmnist_tiny", "--data", "mmnist", "--data-dir", sample_root, *SHORT]
    ok("pretrain", *common, "--out", tmp_path / "one")
    ok("train", *common, "--init", tmp_path / "one", "--out", tmp_path / "two")
    saved = read_config(training.TrainConfig, tmp_path / "two" / "config.toml")
    assert saved["init"] == str(tmp_path / "one")
    assert saved["model_args"] == {"encoder_dim": 8, "translator_dim": 16, "translator_depth": 1}
    out = ok(
        "evaluate", "--model", "plasm_mmnist_tiny", "--weights", tmp_path / "two", "--data", "mmnist",
        "--data-dir", sample_root, "--num-clips", 4, "--per-frame",
    )  # fmt: skip
    assert "4 test clips of mmnist, 10 -> 10 frames" in out
    assert len(table_of(out)) == 3
    assert [line.split()[0] for line in out.splitlines()[-11:-1]] == [str(n) for n in range(1, 11)]
    out = ok(
        "evaluate", "--weights", tmp_path / "two", "--data", "mmnist", "--data-dir", sample_root, "--num-clips", 2,
        "--frames", 13, "--per-frame",
    )  # fmt: skip
    assert "2 test clips of mmnist, 10 -> 13 frames" in out
    assert [line.split()[0] for line in out.splitlines()[-14:-1]] == [str(n) for n in range(1, 14)]
    assert "--frames 13" in json.loads((tmp_path / "two" / "metrics.json").read_text(encoding="utf-8"))["options"]
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
    np.savez(tmp_path / "camera.npz", other=clip, camera=clip.transpose(1, 2, 0).astype(np.int16) * 16)
    ok(
        "predict", "--weights", tmp_path / "two", "--input", tmp_path / "camera.npz", "--frames", 15, "--out",
        tmp_path / "p", "--data-arg", "array=camera", "--data-arg", "axes=YXT", "--data-arg", "value_range=(0,4080)",
    )  # fmt: skip
    np.testing.assert_allclose(np.load(tmp_path / "p" / "prediction.npy"), expected.numpy(), atol=1e-5)


def test_a_clip_long_enough_is_split_into_input_and_truth(tmp_path: Path) -> None:
    clip = np.random.default_rng(0).integers(0, 256, (13, 64, 64), dtype=np.uint8)
    np.save(tmp_path / "clip.npy", clip)
    table = table_of(ok("predict", "--input", tmp_path / "clip.npy", "--frames", 3, "--out", tmp_path / "p"))
    last, truth = clip[9] / 255, clip[10:] / 255
    assert table["last frame"][0] == pytest.approx(((truth - last) ** 2).sum((1, 2)).mean(), abs=0.01)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three colours, 4 -> 4 frames, hardly trained."""
    root = tmp_path_factory.mktemp("clips")
    for split, count in (("train", 4), ("val", 1), ("test", 1)):
        for number in range(count):
            write_video(root / split / f"{number}.mp4", frames(10))
    ok(
        "train", "--model", "plasm_human36m", "--data", "clips", "--data-dir", root, "--out", root / "run", *SHORT,
        "--data-arg", "stride=1", "--data-arg", "size=(16,20)", "--workers", 1,
    )  # fmt: skip
    out = ok(
        "evaluate", "--weights", root / "run", "--data", "clips", "--data-dir", root, "--data-arg", "size=(16, 20)",
        "--workers", 1,
    )  # fmt: skip
    assert "1 test clips of clips, 4 -> 4 frames" in out
    return root / "run"


def test_predict_from_a_video_into_a_video(small_run: Path, tmp_path: Path) -> None:
    common = ["predict", "--weights", small_run, "--frames", 40]
    sources = {
        "my.mp4": write_video(tmp_path / "my.mp4", frames(30, 26, 34), rate=12),
        "my.gif": write_video(tmp_path / "my.gif", frames(4, 15, 41), "gif"),
        "images": write_images(tmp_path / "images", frames(60, 16, 16)),
        "gray.npy": tmp_path / "gray.npy",
    }
    np.save(tmp_path / "gray.npy", frames(5, 17, 19)[..., 0])
    for name, source in sources.items():
        out = tmp_path / f"{name}.out.mp4"
        assert f"1 clip(s), 4 -> 40 frames: {out}" in ok(*common, "--input", source, "--out", out)
        (stream,) = open_source(out, 3)
        assert stream.num_frames == 44
        height, width = open_source(source, 3)[0].size
        assert stream.size == (height + height % 2, width + width % 2)
    assert open_source(tmp_path / "my.mp4.out.mp4", 3)[0].rate == 12
    # Of a clip too short for truth the last frames are the input: as they were, but for the codec.
    shown = open_source(tmp_path / "my.mp4.out.mp4", 3)[0].read(0, 4).mean((1, 2, 3))
    np.testing.assert_allclose(shown, [208, 216, 224, 232], atol=4)
    ok(*common, "--input", sources["my.mp4"], "--out", tmp_path / "small.gif", "--size", 8, 12, "--step", 3)
    assert open_source(tmp_path / "small.gif", 3)[0].size == (8, 12)
    assert "cannot be written as a video" in fails(*common, "--input", sources["my.mp4"], "--out", tmp_path / "my.xyz")
    np.save(tmp_path / "many.npy", np.zeros((2, 9, 2, 8, 8), np.uint8))
    assert "from which 3 cannot be made" in fails(*common, "--input", tmp_path / "many.npy", "--out", tmp_path)


def test_predict_chooses_a_model_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaded: list[str] = []

    def load(name: str, source: None) -> torch.nn.Module:
        loaded.append(name)
        return timm.create_model(name, encoder_dim=4, translator_dim=8, translator_depth=1)

    published = {"plasm_mmnist_tiny", "plasm_human36m", "plasm_mmnist"}
    monkeypatch.setattr(weights, "tags", lambda name: ["x"] if name in published else [])
    monkeypatch.setattr(prediction, "load_model", load)
    write_video(tmp_path / "colour.mp4", frames(12, 16, 16))
    np.save(tmp_path / "gray.npy", frames(12, 16, 16)[..., 0])
    np.save(tmp_path / "short.npy", frames(3, 16, 16)[..., 0])
    for name in ("colour.mp4", "gray.npy"):
        ok("predict", "--input", tmp_path / name, "--out", tmp_path / "p", "--frames", 2)
    published.remove("plasm_human36m")
    ok("predict", "--input", tmp_path / "colour.mp4", "--out", tmp_path / "p", "--frames", 2)
    assert "plasm_mmnist_tiny takes 1 channel(s): " in caplog.text
    assert loaded == ["plasm_human36m", "plasm_mmnist_tiny", "plasm_mmnist_tiny"]
    message = fails("predict", "--input", tmp_path / "short.npy", "--out", tmp_path / "p")
    assert "no model with weights fits" in message
    assert "3 frames of 1 channel(s)" in message
    assert "plasm_mmnist_tiny (10 frames of 1 channel(s))" in message


def test_list_prints_the_models_of_a_pattern() -> None:
    assert "no model is called 'resnet*'" in fails("list", "resnet*")
    lines = ok("list", "plasm*").splitlines()
    assert len(lines) == 8
    row = next(line.split() for line in lines if line.startswith("plasm_mmnist "))
    assert row[1:5] == ["19.00", "M", "7.75", "G"]
    tags = ", ".join(weights.tags("plasm_mmnist_tiny"))
    assert tags
    assert next(line for line in lines if line.startswith("plasm_mmnist_tiny")).endswith(tags)


@pytest.mark.parametrize(
    ("command", "config"),
    [
        ("pretrain", training.PretrainConfig),
        ("train", training.TrainConfig),
        ("evaluate", evaluation.EvaluateConfig),
        ("predict", prediction.PredictConfig),
    ],
)
def test_every_field_of_the_config_is_an_option_with_help(command: str, config: type) -> None:
    text = " ".join(ok(command, "--help").split())
    for field in fields(config):
        option = "--" + field.name.replace("_", "-").replace("-args", "-arg")
        assert option in text
        assert field.metadata["help"].split(".")[0].split(":")[0] in text


@pytest.mark.parametrize("command", ["pretrain", "train"])
def test_options_of_a_run_are_in_groups(command: str) -> None:
    text = ok(command, "--help")
    titles = [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    phase = ["Masking"] if command == "pretrain" else []
    assert titles == ["Model and data", "Run", "Steps", "Optimizer", "Schedule", *phase, "Machine", "Other"]
    assert text.rstrip().splitlines()[-2:] == ["Other:", "  --help  Show this message and exit."]
    parameters = {parameter.name for parameter in main.commands[command].params}
    grouped = [name for names in main.commands[command].groups.values() for name in names]  # type: ignore[attr-defined]
    assert len(grouped) == len(set(grouped))
    assert parameters <= set(grouped)


@pytest.mark.parametrize("arguments", [["--help"], ["data", "--help"]])
def test_no_line_of_help_is_cut(arguments: list[str]) -> None:
    text = ok(*arguments)
    assert "..." not in text.replace("[ARGS]...", "")
    group = main if arguments == ["--help"] else main.commands["data"]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        first = " ".join(str(command.help).split("\n\n")[0].split()).partition(". ")[0]
        assert f"{name} {first.removesuffix('.')}" in " ".join(text.split())


def test_height_and_width_are_called_so() -> None:
    for command in ("predict", "export"):
        assert "--size H W" in ok(command, "--help")


@pytest.mark.parametrize(("given", "meant"), [("foo", ""), ("simvp_mnist", "simvp_mmnist"), ("TAU*", "tau")])
def test_list_suggests(given: str, meant: str) -> None:
    said = fails("list", given)
    assert f"no model is called {given!r}; do you mean " in said
    assert len(said.partition("do you mean ")[2].partition("?")[0].split(", ")) == 3
    assert meant in said


def test_what_is_mistyped_is_named_as_it_is_called(sample_root: Path, tmp_path: Path) -> None:
    common = [
        "train", "--model", "plasm_mmnist_tiny", "--data", "mmnist", "--data-dir", sample_root, "--out", tmp_path / "r",
        "--device", "cpu",
    ]  # fmt: skip
    said = fails(*common, "--model-arg", "in_chan=3")
    assert "it has no argument in_chan; do you mean in_chans" in said
    assert "unexpected keyword" not in said
    assert "no argument nonsense. It has: " in fails(*common, "--model-arg", "nonsense=3")
    assert "the task of plasm_mmnist_tiny has no option stop; it has: none" in fails(*common, "--task-arg", "stop=3")
    assert "--task-arg forcing_steps=..." in fails(
        *common, "--model", "phydnet_mmnist", "--model-arg", "forcing_steps=3"
    )
    said = fails(*common, "--optimizer", "adm")
    assert "no optimizer is called 'adm'; do you mean adam, " in said
    assert len(said.partition("do you mean ")[2].partition("?")[0].split(", ")) == 3
    assert not (tmp_path / "r").exists()


def test_options_over_the_papers_defaults_over_the_records(
    sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[training.TrainConfig] = []
    monkeypatch.setattr(training, "run", lambda config, **how: seen.append(config))
    common = ["train", "--model", "plasm_taxibj", "--data", "mmnist", "--data-dir", sample_root, "--out", tmp_path]
    ok(*common, "--epochs", 3, "--no-bf16", "--model-arg", "attention=none", "--model-arg", "num_heads=4")
    config = seen[0]
    assert (config.epochs, config.lr, config.schedule, config.batch_size) == (3, 0.001, "cosine", 16)
    assert (config.bf16, config.freeze_encoder, config.init) == (False, None, None)
    assert config.model_args == {"attention": "none", "num_heads": 4}
    ok(*common, "--no-freeze-encoder")
    assert seen[1].freeze_encoder is False
    ok(
        *common, "--model", "predrnnv2_mmnist", "--task-arg", "sampling_stop=9", "--opt-arg", "betas=(0.9, 0.95)",
        "--layer-decay", "0.5",
    )  # fmt: skip
    assert seen[2].task_args == {"sampling_stop": 9, "reverse_sampling": True, "decouple_weight": 0.1}
    assert (seen[2].opt_args, seen[2].layer_decay) == ({"betas": (0.9, 0.95)}, 0.5)


def test_what_a_user_can_mend_is_one_clear_line(tmp_path: Path, sample_root: Path) -> None:
    assert "no weights are published for plasm_kth" in fails("predict", "--model", "plasm_kth", "--out", tmp_path)
    np.save(tmp_path / "short.npy", np.zeros((5, 64, 64), np.uint8))
    assert "short.npy, which has 5 frames of 1 channel(s); there are: convlstm_mmnist_tiny (10 frames" in fails(
        "predict", "--input", tmp_path / "short.npy", "--out", tmp_path
    )
    assert "none.npy" in fails("predict", "--input", tmp_path / "none.npy", "--out", tmp_path)
    assert "is not a run" in fails("evaluate", "--weights", tmp_path, "--data-dir", sample_root)
    common = ["train", "--model", "plasm_mmnist_tiny", "--data-dir", sample_root, "--out", tmp_path / "run"]
    assert "no data set is called 'nope'" in fails(*common, "--data", "nope")
    assert "heads must divide" in fails(*common, "--data", "mmnist", "--model-arg", "num_heads=7")
    assert "no_such_argument" in fails(*common, "--data", "mmnist", "--model-arg", "no_such_argument=7")
    assert "NAME=VALUE" in fails(*common, "--data", "mmnist", "--model-arg", "num_heads")
    assert "--data-arg takes NAME=VALUE" in fails(*common, "--data", "mmnist", "--data-arg", "size")
    assert "mmnist has no option size; it has: none" in fails(*common, "--data", "mmnist", "--data-arg", "size=1")
    assert "no model is called 'plasm_nope'" in fails(*common, "--data", "mmnist", "--model", "plasm_nope")
    assert not (tmp_path / "run").exists()


def test_what_the_system_refuses_is_said_without_its_number(tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    torch.save(timm.create_model("plasm_mmnist_tiny").state_dict(), tmp_path / "old.pth")
    output = fails("convert", tmp_path / "old.pth", tmp_path / "new", "--model", "plasm_mmnist_tiny")
    assert output == f"Error: {tmp_path / 'new'}: File exists\n"


def test_options_out_of_range_are_errors(tmp_path: Path, sample_root: Path) -> None:
    assert "frames is at least 1, got 0" in fails("predict", "--frames", 0, "--out", tmp_path / "p")
    assert "size is at least 1, got 0" in fails("predict", "--size", 4, 0, "--out", tmp_path / "p")
    assert "num_clips is at least 1" in fails("evaluate", "--num-clips", 0, "--data-dir", sample_root)
    assert "missing: --data-dir" in fails("evaluate")
    # As a shell gives a variable that is not set.
    given = {"--input": ("predict", "--input", ""), "--out": ("demo", "--out="), "an argument": ("convert", "a", "")}
    for name, arguments in given.items():
        assert fails(*arguments) == f"Error: {name} is empty: give it, or leave it out\n"
    assert "missing: --model, --data, --data-dir, --out" in fails("train")


def test_a_shell_completes_what_has_an_empty_argument() -> None:
    completed = ShellComplete(main, {}, "plasm", "").get_completions(["predict", "--input", ""], "--mod")
    assert [item.value for item in completed] == ["--model"]


def test_a_configuration_file_and_flags_over_it(sample_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(f'model = "plasm_mmnist_tiny"\ndata = "mmnist"\ndata_dir = "{sample_root}"\nepochs = 50\n')
    ok("train", "--config", file, "--out", tmp_path / "one", *SHORT)
    ok("train", "--config", tmp_path / "one" / "config.toml", "--out", tmp_path / "two")
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    assert "holds a run already" in fails("train", "--config", tmp_path / "one" / "config.toml")
    assert "is for `plasm train`" in fails("pretrain", "--config", tmp_path / "one" / "config.toml")
    ok("train", "--config", tmp_path / "one" / "config.toml", "--resume")


def test_python_m_plasm_is_the_command() -> None:
    out = subprocess.run([sys.executable, "-m", "plasm", "--help"], capture_output=True, text=True, check=True).stdout
    for command in ("evaluate", "list", "predict", "pretrain", "train"):
        assert command in out
    assert "Usage: plasm" in out


def test_predict_says_what_the_weights_were_trained_on(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0)
    street = numbers.integers(0, 256, (1, 16, 16, 1)) + np.zeros((20, 1, 1, 1))
    np.save(tmp_path / "street.npy", street.astype(np.uint8)[..., 0])
    out = ok("predict", "--input", tmp_path / "street.npy", "--out", tmp_path / "p")
    assert "predicted by plasm_mmnist_tiny." in out
    assert "were trained on Moving MNIST alone" in out
    # Ten such files have a clip each, eight of them to train on: a step.
    assert (
        "plasm train --model plasm_mmnist_tiny --init plasm_mmnist_tiny --data clips --data-dir FOLDER --data-arg "
        "channels=1 --data-arg stride=1 --lr 0.002 --epochs 2000 --out RUN\n"
    ) in out
    assert "plasm predict --weights RUN --input FILE\n" in out
    assert "in_chans" not in out
    assert "the forecast scores below the last frame repeated (MSE " in out
    shown = ok("predict", "--out", tmp_path / "p")
    assert "Moving MNIST" not in shown
    assert "scores below" not in shown
    shown = ok("predict", "--model", "plasm_radar", "--out", tmp_path / "p")
    assert "were trained on radar alone" in shown
    assert "plasm train" not in shown


def test_a_warning_of_a_bad_forecast_gives_the_metric_that_it_is_about(tmp_path: Path) -> None:
    # Of dim digits and bright noise the model's PSNR is the higher one, and its MSE, too.
    digits = 0.5 * read_clips(SAMPLES / "clips.npz", 1)[:3].numpy()
    noise = np.random.default_rng(0).random((1, *digits.shape[1:]), np.float32)
    np.save(tmp_path / "c.npy", np.concatenate([digits, noise]))
    out = ok("predict", "--model", "plasm_mmnist_tiny", "--input", tmp_path / "c.npy", "--out", tmp_path / "p")
    table = table_of(out)
    (mse, *_, psnr), (still_mse, *_, still_psnr) = table["model"], table["last frame"]
    assert mse > still_mse
    assert psnr > still_psnr
    assert f"scores below the last frame repeated (MSE {mse:.2f} against {still_mse:.2f})" in out


def test_advice_for_videos_of_ones_own(tmp_path: Path) -> None:
    pytest.importorskip("av")
    movie(torch.rand(90, 3, 120, 160), tmp_path / "own.mp4")
    out = ok("predict", "--input", tmp_path / "own.mp4", "--step", 2, "--out", tmp_path / "p")
    # 52 first frames in each of eight files: 416 clips, 52 steps.
    assert (
        "plasm train --model plasm_mmnist_tiny --model-arg in_chans=3 --init plasm_mmnist_tiny --data clips --data-dir "
        'FOLDER --data-arg "size=(48,64)" --data-arg stride=1 --lr 0.002 --epochs 39 --data-arg step=2 --out RUN\n'
    ) in out
    assert "plasm predict --weights RUN --input FILE --size 48 64 --step 2\n" in out
    np.save(tmp_path / "short.npy", np.zeros((12, 16, 16), np.uint8))
    assert "videos of 20 frames or more" in ok("predict", "--input", tmp_path / "short.npy", "--out", tmp_path / "p")


def test_predict_says_how_many_frames_are_needed(tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", np.zeros((12, 16, 16), np.uint8))
    common = ["predict", "--input", tmp_path / "short.npy", "--out", tmp_path / "p"]
    message = fails(*common, "--step", 3)
    assert "It is too short: one in 3 of its 12 frames, 4, where 10 are needed at least" in message
    # Nor are the weights of radar offered, which take fewer.
    assert "plasm_radar" not in message
    assert "the clip has 4 frames; the model needs 10" in fails(*common, "--step", 3, "--model", "plasm_mmnist_tiny")
    assert not (tmp_path / "p").exists()


def test_many_clips_are_predicted_in_batches_and_a_few_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def count(clip: torch.Tensor, num_frames: int) -> torch.Tensor:
        sizes.append(len(clip))
        return clip[:, -1:].expand(-1, num_frames, -1, -1, -1)

    monkeypatch.setattr(prediction, "forecast", lambda net: count)
    clips = np.random.default_rng(0).integers(0, 256, (30, 12, 1, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "many.npy", clips)
    out = ok("predict", "--input", tmp_path / "many.npy", "--frames", 2, "--out", tmp_path / "results.v2")
    assert "30 clip(s), 10 -> 2 frames" in out
    assert "the first 8 of 30 clips are drawn" in out
    assert max(sizes) <= 8
    predicted = np.load(tmp_path / "results.v2" / "prediction.npy")
    np.testing.assert_allclose(predicted, clips[:, 9:10].repeat(2, 1) / np.float32(255))
    with Image.open(tmp_path / "results.v2" / "prediction.png") as image:
        assert image.height < 8 * 400
    ok("predict", "--input", tmp_path / "many.npy", "--frames", 2, "--out", tmp_path / "many.mp4")
    assert open_source(tmp_path / "many.mp4", 3)[0].size == (8, 64)


@pytest.mark.parametrize("channels", [4, 12])
def test_more_channels_than_colours_are_predicted_and_the_first_drawn(tmp_path: Path, channels: int) -> None:
    model = timm.create_model("plasm_mmnist", in_chans=channels, encoder_dim=4, translator_dim=8, translator_depth=1)
    weights.save_pretrained(model, tmp_path / "w")
    clips = np.random.default_rng(0).integers(0, 256, (3, 21, channels, 16, 16), dtype=np.uint8)
    np.save(tmp_path / "clips.npy", clips)
    out = ok("predict", "--weights", tmp_path / "w", "--input", tmp_path / "clips.npy", "--out", tmp_path / "p")
    assert f"of {channels} channels the first is drawn" in out
    assert (tmp_path / "p" / "prediction.png").is_file()
    (tmp_path / "data").mkdir()
    for number in range(3):
        np.save(tmp_path / "data" / f"{number}.npy", clips[number])
    show = ["data", "show", "clips", "--data-dir", tmp_path / "data", "--num-frames", 5, "--out", tmp_path / "s.png"]
    assert f"of {channels} channels the first is drawn" in ok(*show, "--data-arg", f"channels={channels}")


@pytest.mark.parametrize("name", ["my.xyz", "file", "file/p", "file/out.mp4"])
def test_where_predictions_go_is_checked_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(prediction, "load_model", lambda *_: pytest.fail("worked first"))
    (tmp_path / "file").write_text("")
    assert ("cannot be written" if name != "file" else "is a file") in fails("predict", "--out", tmp_path / name)


@pytest.mark.parametrize(
    "command",
    [
        "export plasm_mmnist_tiny --out file/a.onnx",
        "evaluate --data radar --data-dir here --weights plasm_radar --out file/scores",
        "predict --data radar --input here --weights plasm_radar --out file/forecast",
        "demo --weights plasm_mmnist_tiny --out file/page",
        "data show mmnist --data-dir none --num-frames 20 --out file/a.png",
    ],
)
def test_where_results_go_is_checked_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: pytest.fail("worked first"))
    (tmp_path / "file").touch()
    assert re.search(r"file is a file; file\S* cannot be written below it", fails(*command.split()))


def test_frames_without_ssim_have_the_other_metrics(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.random.default_rng(0).integers(0, 256, (20, 5, 32), dtype=np.uint8))
    out = ok("predict", "--input", tmp_path / "flat.npy", "--out", tmp_path / "p")
    assert "no SSIM: frames of 5x32 are smaller than its window of 7x7 pixels" in out
    assert [len(row) for row in table_of(out).values()] == [3, 3, 3]


def test_evaluation_beside_weights_that_cannot_be_written(
    sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = timm.create_model("plasm_mmnist", encoder_dim=4, translator_dim=8, translator_depth=1)
    weights.save_pretrained(model, tmp_path / "w")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(publishing, "atomic_write", refuse)
    out = ok("evaluate", "--weights", tmp_path / "w", "--data-dir", sample_root, "--num-clips", 2)
    assert table_of(out).keys() == {"model", "black", "last frame"}
    assert "not written beside the weights: [Errno 30] Read-only file system" in caplog.text


def test_a_value_that_is_not_finite_leaves_good_metrics_alone(tmp_path: Path) -> None:
    model = timm.create_model("plasm_mmnist", encoder_dim=4, translator_dim=8, translator_depth=1)
    weights.save_pretrained(model, tmp_path / "w")
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "test").mkdir()
    clip = np.random.default_rng(0).random((20, 16, 16), dtype=np.float32)
    for name in ("train/a.npy", "train/b.npy", "test/c.npy"):
        np.save(tmp_path / "data" / name, clip)
    common = ["evaluate", "--weights", tmp_path / "w", "--data", "clips", "--data-dir", tmp_path / "data"]
    common += ["--data-arg", "channels=1"]
    ok(*common)
    good = (tmp_path / "w" / "metrics.json").read_text(encoding="utf-8")
    clip[13, 4, 5] = np.nan
    np.save(tmp_path / "data" / "test" / "c.npy", clip)
    assert "c.npy should hold finite values" in (message := fails(*common))
    assert "in row 13, counted from 0" in message
    assert (tmp_path / "w" / "metrics.json").read_text(encoding="utf-8") == good


def test_an_argument_of_none_is_left_out() -> None:
    for value in ("None", "(1, None)"):
        command = ["train", "--model", "plasm_mmnist_tiny", "--data", "mmnist", "--model-arg", f"out_chans={value}"]
        assert f"--model-arg out_chans={value}: leave it out, for its default" in fails(*command)


def test_true_and_false_are_read_as_in_a_configuration_file() -> None:
    items = ("a=false", "b=True", "c=FALSE", "d=none", "e=(1,2)", "f=falsely")
    assert pairs("model_args", items) == {
        "a": False, "b": True, "c": False, "d": "none", "e": (1, 2), "f": "falsely",
    }  # fmt: skip


@pytest.mark.parametrize("item", ["num_frames=5", "split=train", "root=x", "name=x"])
def test_what_a_command_gives_a_data_set_is_no_option_of_it(item: str, sample_root: Path) -> None:
    command = ["data", "count", "mmnist", "--data-dir", sample_root, "--num-frames", 20, "--data-arg", item]
    assert f"--data-arg {item}: {item.partition('=')[0]} is no option of a data set" in fails(*command)


def test_nor_is_it_in_a_configuration_file(tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_text("[data_args]\nseed = 20\n", encoding="utf-8")
    for command in ("train", "pretrain"):
        said = fails(command, "--config", tmp_path / "train.toml", "--model", "plasm_mmnist_tiny", "--data", "mnist",
                     "--data-dir", "x", "--out", tmp_path / "out")  # fmt: skip
        assert "data_args: seed is none of them; the command has its own" in said


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -m plasm list 'plasm_*' | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("model")
    assert "rror" not in done.stderr


def test_commands_that_run_out_of_memory_say_what_takes_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = fails("export", "--out", tmp_path / "a.onnx", "--size", 2**20, 2**20)
    assert re.fullmatch(r"Error: out of memory \(.+\): a smaller --size takes less\n", said), said
    said = fails("benchmark", "plasm_mmnist_tiny", "--batch-size", 10**9, "--device", "cpu", "--out", tmp_path / "b")
    assert re.fullmatch(r"Error: out of memory \(.+\): a smaller --batch-size, or fewer models, take less\n", said), (
        said
    )

    def fail(*_: object) -> None:
        torch.empty(2**57)

    monkeypatch.setattr("plasm.demo.export.page_model", fail)
    weights.save_pretrained(timm.create_model("plasm_mmnist", encoder_dim=4, translator_dim=8), tmp_path / "w")
    said = fails("demo", "--weights", tmp_path / "w", "--out", tmp_path / "page")
    assert re.fullmatch(r"Error: out of memory \(.+\): a smaller model takes less\n", said), said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w"]
