import functools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import nn

import plasm
from plasm import cli, weights
from plasm.models import create_model, frame_counts, initial_arguments, load_initial_weights, load_model
from plasm.prediction import PredictConfig, predict

MODEL: dict[str, Any] = {"encoder_dim": 8, "translator_dim": 16, "translator_depth": 1}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "saved"
    weights.save_pretrained(timm.create_model("plasm_mmnist_tiny", **MODEL), folder)
    return folder


def begin(source: Path | str, **arguments: Any) -> Any:
    """A model that was given the weights to begin with."""
    model = timm.create_model("plasm_mmnist_tiny", **arguments)
    load_initial_weights(model, "plasm_mmnist_tiny", str(source), **arguments)
    return model


def test_weights_of_the_whole_model_are_taken_whole(saved: Path) -> None:
    model, tensors = begin(saved, **MODEL), load_file(saved / "model.safetensors")
    assert set(tensors) == set(model.state_dict())
    assert all(torch.equal(tensors[name], tensor) for name, tensor in model.state_dict().items())


def test_training_goes_on_from_published_weights(caplog: pytest.LogCaptureFixture) -> None:
    """On a user's own clips: other channels, other frame counts."""
    changes = {"in_chans": 3, "in_frames": 4, "out_frames": 6}
    expected = timm.create_model("plasm_mmnist_tiny", pretrained=True, **changes).state_dict()
    caplog.clear()
    for name in ("plasm_mmnist_tiny", weights.entry("plasm_mmnist_tiny").name):
        model = begin(name, **changes)
        assert all(torch.equal(expected[name], tensor) for name, tensor in model.state_dict().items())
    assert "loaded as they are all tensors but" in caplog.text


def test_weights_of_other_frame_counts_are_adapted_to_the_model(tmp_path: Path) -> None:
    weights.save_pretrained(timm.create_model("plasm_mmnist_tiny", in_frames=5, **MODEL), tmp_path)
    assert begin(tmp_path, **MODEL).translator.in_proj.weight.shape[1] == 10 * MODEL["encoder_dim"]


@pytest.mark.parametrize("arguments", [{"residual": True}, {"score": "softmax"}])
def test_arguments_that_no_tensor_shows_are_not_lost(tmp_path: Path, arguments: dict[str, Any]) -> None:
    weights.save_pretrained(timm.create_model("plasm_mmnist_tiny", **MODEL, **arguments), tmp_path)
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"made with other arguments.*--model-arg {name}={value}"):
        begin(tmp_path, **MODEL)
    begin(tmp_path, **MODEL, **arguments)


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("SAVED", {**MODEL, "translator_depth": 2}, "does not fit the model: .* missing: translator"),
        ("SAVED", {}, r"saved does not fit the model: .* of another shape: encoder"),
        ("plasm_mmnist_tiny", MODEL, "does not fit the model"),
        ("plasm_kth", {}, "plasm_kth holds a plasm_kth, not a plasm_mmnist_tiny"),
        ("nowhere", {}, r"nowhere is not there.*hf-hub:OWNER/NAME, or of the published: plasm_mmnist_tiny\."),
    ],
)
def test_what_does_not_fit_is_said(saved: Path, source: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        begin(saved if source == "SAVED" else source, **arguments)


def test_weights_that_are_named_twice_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"plasm_mmnist_tiny\.league is of weights of its own, beside plasm_mmnist_tin"
    ):
        load_model("plasm_mmnist_tiny.league", "plasm_mmnist_tiny.mmnist_v7")
    load_model("plasm_mmnist_tiny.league", "plasm_mmnist_tiny.league")


class NoFrames(nn.Module):
    pass


def test_what_a_model_lacks_is_said() -> None:
    with pytest.raises(ValueError, match=r"NoFrames does not say .* in_frames and out_frames"):
        frame_counts(NoFrames())


def test_names_that_lead_nowhere() -> None:
    with pytest.raises(ValueError, match=r"no model is called 'nothing'; `plasm list` names plasm's"):
        create_model("nothing")
    with pytest.raises(ValueError, match="'plasm_mnist'; do you mean plasm_mmnist"):
        create_model("plasm_mnist")
    with pytest.raises(ImportError):
        create_model("no_such_module:net")
    train = ["train", "--model", "no_such_module:net", "--data", "mmnist", "--data-dir", ".", "--out", "o"]
    result = CliRunner().invoke(cli.main, train)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")


def test_an_argument_that_a_model_lacks_is_said_whatever_names_it(saved: Path) -> None:
    for make in (
        lambda: create_model("plasm_mmnist_tiny", nothing=1),
        lambda: create_model(f"local-dir:{saved}", nothing=1),
        lambda: load_model(None, str(saved), nothing=1),
    ):
        with pytest.raises(ValueError, match=r"it has no argument nothing.* It has: in_chans"):
            make()


def folder_of(path: Path, architecture: str, arguments: dict[str, Any], tensors: dict[str, Any]) -> Path:
    """A folder as anyone can make one."""
    path.mkdir()
    config = {"architecture": architecture, "model_args": arguments, "pretrained_cfg": {"input_size": [3, 64, 64]}}
    (path / "config.json").write_text(json.dumps(config))
    weights.save_tensors(tensors, path / "model.safetensors")
    return path


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("vit_tiny_patch16_224", {"embed_dim": 30000}),
        ("vit_tiny_patch16_224", {"depth": 10**9}),
        ("resnet18", {"block": "no block"}),
        ("resnet18", {}),
    ],
)
def test_a_folder_of_a_model_of_timms_own_is_refused(
    tmp_path: Path, architecture: str, arguments: dict[str, Any]
) -> None:
    run = folder_of(tmp_path / "run", architecture, arguments, {"a": torch.zeros(1)})
    for name in (None, architecture):
        with pytest.raises(ValueError, match=f"run holds a {architecture}, which is timm's and no model of plasm"):
            load_model(name, str(run))
    with pytest.raises(ValueError, match=f"run holds a {architecture}, which is timm's and no model of plasm"):
        plasm.create_model(f"local-dir:{run}")
    with pytest.raises(ValueError, match=r"no model of plasm|not a resnet18"):
        load_initial_weights(timm.create_model("resnet18"), "resnet18", str(run))


class Users(nn.Module):
    def __init__(self, width: int = 4, names: str = "ab") -> None:
        super().__init__()
        self.layers = nn.ModuleDict({name: nn.Linear(width, width) for name in names.lower()})


def users_net(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return Users(
        **{key: value for key, value in kwargs.items() if not key.startswith("pretrained_cfg") and key != "cache_dir"}
    )


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> str:
    """A model that a user registers."""
    monkeypatch.setitem(timm.models._registry._model_entrypoints, "users_net", users_net)
    return "users_net"


def test_a_folder_of_a_users_model_is_checked_before_it_is_built(tmp_path: Path, registered: str) -> None:
    tensors = Users().state_dict()
    good = load_model(registered, str(folder_of(tmp_path / "good", registered, {}, tensors)))
    assert all(torch.equal(tensors[name], tensor) for name, tensor in good.state_dict().items())
    wrong = {
        "width = 1000000000": {"width": 10**9},
        "parameters; plasm builds": {"width": 60000},
        "does not fit the model": {"width": 5000},
        "describes no users_net": {"names": 3},
        "describes no users_net: users_net was given": {"no_such": 3},
        "values of names": {"names": ["a"] * 1000},
    }
    for number, (message, arguments) in enumerate(wrong.items()):
        run = folder_of(tmp_path / str(number), registered, arguments, tensors)
        with pytest.raises(ValueError, match=message) as error:
            load_model(registered, str(run))
        assert str(run) in str(error.value)


def test_a_name_that_is_published_and_lies_here_is_ambiguous(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    published = weights.entry("plasm_mmnist_tiny")
    for name in (published.model, published.name):
        shutil.copytree(saved, name)
        for use in (
            lambda name=name: load_model(None, name),
            lambda name=name: begin(name),
            lambda name=name: initial_arguments("plasm_mmnist_tiny", name),
        ):
            with pytest.raises(ValueError, match=rf"{name} names published weights, and {tmp_path}/{name} lies here"):
                use()
        assert load_model(None, f"./{name}").state_dict().keys() == load_file(saved / "model.safetensors").keys()
        assert initial_arguments("plasm_mmnist_tiny", f"./{name}") == MODEL
        shutil.rmtree(name)
        Path(name).symlink_to("a disk that is not mounted")
        with pytest.raises(ValueError, match=f"{name} lies here: give ./{name} for what lies here"):
            load_model(None, name)
        Path(name).unlink()
    shutil.copytree(saved, "plasm_kth")  # has no published weights
    with pytest.raises(ValueError, match="plasm_kth holds a plasm_mmnist_tiny, not a plasm_kth"):
        load_model("plasm_kth", "plasm_kth")
    assert load_model(None, "plasm_kth")
    assert load_model(None, published.name)
    shutil.copytree(saved, ".", dirs_exist_ok=True)
    for use in (lambda: load_model(None, ""), lambda: begin(""), lambda: predict(PredictConfig(weights=""))):
        with pytest.raises(ValueError, match="weights are given by an empty name"):
            use()


FIXED_SIZE: dict[str, dict[str, Any]] = {
    "mau_mmnist": {"hidden_dims": (8, 8), "kernel_size": 3, "tau": 2},
    "mim_mmnist": {"hidden_dims": (8, 8), "kernel_size": 3},
    "simvp_mlpmixer_mmnist": {"encoder_dim": 4, "translator_dim": 16, "translator_depth": 2},
}


@pytest.mark.parametrize("name", FIXED_SIZE)
def test_training_goes_on_from_a_model_of_fixed_size(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What config.json states is compared, and no model is made to learn it."""
    args = {**FIXED_SIZE[name], "img_size": (32, 32)}
    first = timm.create_model(name, **args)
    weights.save_pretrained(first, tmp_path)

    @functools.wraps(type(first).__init__)
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model is made")

    with monkeypatch.context() as patched:
        patched.setattr(type(first), "__init__", refuse)  # not even on the meta device
        found = initial_arguments(name, str(tmp_path))
    assert {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()} == args
    model = timm.create_model(name, **found)
    load_initial_weights(model, name, str(tmp_path), **found)
    assert all(torch.equal(first.state_dict()[key], tensor) for key, tensor in model.state_dict().items())


def test_arguments_that_only_the_size_of_frames_hides_are_not_lost(tmp_path: Path) -> None:
    args = FIXED_SIZE["mau_mmnist"]
    weights.save_pretrained(timm.create_model("mau_mmnist", **args, cell_mode="residual"), tmp_path)
    model = timm.create_model("mau_mmnist", **args)
    with pytest.raises(ValueError, match=r"made with other arguments.*--model-arg cell_mode=residual"):
        load_initial_weights(model, "mau_mmnist", str(tmp_path), **args)
