import json
import re
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from client import Clients
from commands import fails, ok
from hub_server import Hub
from PIL import Image

from plasm import weights
from plasm.models.plasm import FAMILY
from plasm.runs import record_metrics

SMALL: dict[str, Any] = {"encoder_dim": 8, "translator_dim": 16, "translator_depth": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each phase."""
    from plasm.data import SAMPLES

    root = tmp_path_factory.mktemp("runs")
    common: list[object] = [
        "--model", "plasm_mmnist_tiny", "--data", "mmnist", "--data-dir", SAMPLES, "--epochs", 1,
        "--clips-per-epoch", 8, "--batch-size", 4, "--val-clips", 2, "--device", "cpu",
    ]  # fmt: skip
    for name, value in SMALL.items():
        common += ["--model-arg", f"{name}={value}"]
    ok("pretrain", *common, "--out", root / "one")
    ok("train", *common, "--init", root / "one", "--out", root / "two")
    return root


@pytest.fixture
def evaluated(runs: Path, sample_root: Path) -> Path:
    """The second run, measured."""
    run = runs / "two"
    out = ok("evaluate", "--weights", run, "--data", "mmnist", "--data-dir", sample_root, "--num-clips", 3)
    assert f"written to {run}/metrics.json" in out
    return run


def push(clients: Clients, run: Path, repo: str, *options: str) -> str:
    arguments = ["push", str(run), "--repo", repo, *options]
    code = (
        "from click.testing import CliRunner; from plasm.cli import main\n"
        f"done = CliRunner().invoke(main, {arguments!r})\n"
        "result = [done.exit_code, done.output]"
    )
    status, output = clients.run(code)
    assert status == 0, output
    return str(output)


def test_list_shows_every_weight_in_full() -> None:
    out = ok("list", "--weights")
    for row in weights.entries():
        for value in (row.name, row.file, row.sha256, row.license, row.data, row.command, row.date, f"{row.clips:,}"):
            assert value in out


@pytest.mark.parametrize("pattern", ["tau*", "tau_*.leag?e"])
def test_list_shows_the_weights_of_a_pattern(pattern: str) -> None:
    assert [line for line in ok("list", pattern, "--weights").splitlines() if not line.startswith(" ")] == [
        "tau_mmnist_tiny.league"
    ]
    assert "no published weights are of 'taxi*'" in fails("list", "taxi*", "--weights")


def test_evaluate_writes_what_it_measured_beside_the_weights(evaluated: Path) -> None:
    measured = json.loads((evaluated / "metrics.json").read_text())
    assert measured["sha256"] == weights.file_sha256(evaluated / "model.safetensors")
    assert (measured["data"], measured["num_clips"]) == ("mmnist", 3)
    assert measured["options"] == "--data mmnist --data-dir DIR --num-clips 3"
    assert set(measured["metrics"]) == {"model", "black", "last frame"}


def test_a_pushed_run_is_loaded_by_name(hub: Hub, clients: Clients, evaluated: Path, tmp_path: Path) -> None:
    out = push(clients, evaluated, "someone/pushed")
    files = hub.repos["someone/pushed"]["main"]
    assert set(files) == {"README.md", "config.json", "model.safetensors", "prediction.png"}
    revision = next(name for name in hub.repos["someone/pushed"] if name != "main")
    assert f"{hub.endpoint}/someone/pushed at {revision}" in out
    assert files["model.safetensors"] == (evaluated / "model.safetensors").read_bytes()
    loaded = clients.run(
        "import timm, plasm\n"
        f"model = timm.create_model('hf-hub:someone/pushed', pretrained=True, cache_dir={str(tmp_path)!r})\n"
        "result = {name: p.double().sum().item() for name, p in model.state_dict().items()}"
    )
    expected = {
        name: t.double().sum().item() for name, t in weights.load_tensors(evaluated / "model.safetensors").items()
    }
    assert loaded == pytest.approx(expected)
    config = json.loads(files["config.json"])
    assert config["architecture"] == "plasm_mmnist_tiny"
    assert config["model_args"].items() >= {**SMALL, "in_frames": 10, "out_frames": 10}.items()


def test_the_card_says_what_is_known(hub: Hub, clients: Clients, evaluated: Path, tmp_path: Path) -> None:
    push(clients, evaluated, "someone/carded", "--license", "cc-by-4.0")
    files = hub.repos["someone/carded"]["main"]
    card = files["README.md"].decode()
    assert card.startswith("---\n")
    front, body = card.split("---\n", 2)[1:]
    assert "license: cc-by-4.0" in front
    assert "library_name: timm" in front
    data = huggingface_hub.ModelCard(card).data
    assert (data.pipeline_tag, data.datasets, data.model_name) == ("video-to-video", ["mmnist"], "someone/carded")
    known = json.loads((evaluated / "metrics.json").read_text(encoding="utf-8"))["metrics"]["model"]
    results = {result.metric_type: result for result in data.eval_results}
    assert set(results) == set(data.metrics) == set(known)
    assert results["mse"].metric_value == round(known["mse"], 4)
    assert (results["mse"].dataset_name, results["mse"].dataset_split) == ("mmnist", "test")
    assert FAMILY.citation in body
    measured: dict[str, Any] = json.loads((evaluated / "metrics.json").read_text())
    for text in (
        weights.file_sha256(evaluated / "model.safetensors"), "arXiv 2311.11289",
        "Trained on `mmnist`, 8 clips seen in phase 2", "phase 1 (masked autoencoding): ", "mask_ratio 0.96",
        "under cc-by-4.0", "![Input, ground truth",
        'timm.create_model("hf-hub:someone/carded", pretrained=True)', "summed over the channels and pixels of a frame",
        "plasm evaluate --weights hf-hub:someone/carded --data mmnist --data-dir DIR --num-clips 3",
        f"{measured['metrics']['model']['mse']:.4f}", f"{measured['metrics']['black']['mae']:.4f}", "3 test clips",
    ):  # fmt: skip
        assert text in body, text
    # Nothing of the machine it was trained on.
    assert str(evaluated.parent) not in card + files["config.json"].decode()
    assert json.loads(files["config.json"])["pretrained_cfg"]["license"] == "cc-by-4.0"
    (tmp_path / "p.png").write_bytes(files["prediction.png"])
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.width > 100
    block = re.findall(r"```python\n(.*?)```", body, re.DOTALL)[0]
    clients.run(block.replace("hf-hub:someone/carded", f"local-dir:{evaluated}"))


def test_metrics_of_other_weights_are_not_on_the_card(
    hub: Hub, clients: Clients, evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = evaluated / "metrics.json"
    measured = json.loads(file.read_text())
    for content in ({**measured, "sha256": "0" * 64}, None):
        file.write_text(json.dumps(content)) if content else file.unlink()
        push(clients, evaluated, "someone/unmeasured")
        card = hub.repos["someone/unmeasured"]["main"]["README.md"].decode()
        assert "Not measured" in card
        assert f"{measured['metrics']['model']['mse']:.4f}" not in card


def test_what_cannot_be_pushed(hub: Hub, clients: Clients, runs: Path, tmp_path: Path) -> None:
    assert "is not a run" in fails("push", tmp_path, "--repo", "someone/model")
    assert "is a run of phase 1" in fails("push", runs / "one", "--repo", "someone/model")
    code = (
        "from click.testing import CliRunner; from plasm.cli import main\n"
        f"result = CliRunner().invoke(main, ['push', {str(runs / 'two')!r}, '--repo', 'someone/model']).output"
    )
    assert "is OWNER/NAME, got 'model'" in fails("push", runs / "two", "--repo", "model")
    assert re.match("Error: .*`hf auth login` first", clients.run(code, HF_TOKEN=""))
    hub.down()
    assert re.match("Error: someone/model: no answer from http://127.0.0.1", clients.run(code))


def test_weights_that_change_while_they_are_measured_are_not_said_to_be_measured(runs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(runs / "two", tmp_path / "run")
    (run / "metrics.json").unlink(missing_ok=True)
    with pytest.raises(OSError, match="changed while they were measured"):
        record_metrics(run, "0" * 64, {}, 1, "mmnist", "")
    assert not (run / "metrics.json").exists()


def test_convert(tmp_path: Path) -> None:
    model = timm.create_model("plasm_mmnist_tiny")
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "old.ckpt")
    ok("convert", tmp_path / "old.ckpt", tmp_path / "new" / "w.safetensors")
    ok("convert", tmp_path / "old.ckpt", tmp_path / "folder", "--model", "plasm_mmnist_tiny")
    overlay = {"file": str(tmp_path / "new" / "w.safetensors")}
    for loaded in (
        timm.create_model("plasm_mmnist_tiny", pretrained=True, pretrained_cfg_overlay=overlay),
        timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True),
    ):
        assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert "--model or --config says" in fails("convert", tmp_path / "old.ckpt", tmp_path / "other")
    assert "does not fit" in fails("convert", tmp_path / "old.ckpt", tmp_path / "other", "--model", "plasm_kth")
    assert not (tmp_path / "other").exists()
    small = timm.create_model("plasm_mmnist_tiny", **SMALL)
    torch.save(small.state_dict(), tmp_path / "small.pth")
    arguments = [f"--model-arg={name}={value}" for name, value in SMALL.items()]
    ok("convert", tmp_path / "small.pth", tmp_path / "small", "--model", "plasm_mmnist_tiny", *arguments)
    loaded = timm.create_model(f"local-dir:{tmp_path / 'small'}", pretrained=True)
    assert all(torch.equal(tensor, small.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert "is not there" in fails("convert", tmp_path / "none.pth", tmp_path / "other.safetensors")
    # Tensors that would have to be adapted are not what was given.
    for new in ("frames", "frames.safetensors"):
        misfit = ["convert", tmp_path / "old.ckpt", tmp_path / new, "--model", "plasm_mmnist_tiny"]
        assert "tensor(s) are of another shape" in fails(*misfit, "--model-arg", "in_frames=5")
        assert not (tmp_path / new).exists()


def test_convert_says_which_weights_it_took_and_takes_those_that_are_asked_for(tmp_path: Path) -> None:
    model = timm.create_model("plasm_mmnist_tiny", **SMALL)
    raw = model.state_dict()
    average = {name: tensor + 1 for name, tensor in raw.items()}
    torch.save({"state_dict": raw, "state_dict_ema": average}, tmp_path / "old.pth")
    arguments = ["--model", "plasm_mmnist_tiny", *(f"--model-arg={name}={value}" for name, value in SMALL.items())]
    for options, key, expected in (((), "state_dict_ema", average), (("--key", "state_dict"), "state_dict", raw)):
        for new in ("new.safetensors", "new"):
            out = ok("convert", tmp_path / "old.pth", tmp_path / new, *options, *(arguments if new == "new" else ()))
            assert out.endswith(f"{len(raw)} tensors, of {key} in {tmp_path / 'old.pth'}\n")
        for file in (tmp_path / "new.safetensors", tmp_path / "new" / "model.safetensors"):
            read = weights.load_tensors(file)
            assert all(torch.equal(tensor, expected[name]) for name, tensor in read.items())
    assert 'no entry "ema"' in fails("convert", tmp_path / "old.pth", tmp_path / "x.safetensors", "--key", "ema")


def test_convert_takes_a_configuration_of_openstls_in_python(tmp_path: Path) -> None:
    (tmp_path / "PredRNN.py").write_text("method = 'PredRNN'\nnum_hidden = '4,4'\nfilter_size = 3", encoding="utf-8")
    model = timm.create_model("predrnn_mmnist", hidden_dims=(4, 4), kernel_size=3)
    torch.save({"net_param": model.state_dict()}, tmp_path / "old.ckpt")
    command = ["convert", tmp_path / "old.ckpt", tmp_path / "folder", "--config", tmp_path / "PredRNN.py"]
    assert '"in_shape"' in fails(*command)
    ok(*command, "--data", "mmnist")
    loaded: Any = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True)
    assert (loaded.img_size, loaded.in_frames, loaded.hidden_dims) == ((64, 64), 10, (4, 4))
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    command = ["convert", tmp_path / "old.ckpt", tmp_path / "x.safetensors", "--data", "kth"]
    assert "--data goes with --config" in fails(*command)
