from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import nn

from plasm import cli, weights
from plasm.loading import frame_counts, load_initial_weights, make_model

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


class NoFrames(nn.Module):
    pass


def test_what_a_model_lacks_is_said() -> None:
    with pytest.raises(ValueError, match=r"NoFrames does not say .* in_frames and out_frames"):
        frame_counts(NoFrames())


def test_names_that_lead_nowhere() -> None:
    with pytest.raises(ValueError, match=r"no model is called 'nothing'; `plasm list` names plasm's"):
        make_model("nothing")
    with pytest.raises(ValueError, match="'plasm_mnist'; do you mean plasm_mmnist"):
        make_model("plasm_mnist")
    with pytest.raises(ImportError):
        make_model("no_such_module:net")
    train = ["train", "--model", "no_such_module:net", "--data", "mmnist", "--data-dir", ".", "--out", "o"]
    result = CliRunner().invoke(cli.main, train)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
