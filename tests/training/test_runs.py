import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file

from plasm import training, weights
from plasm.training import PretrainConfig, TrainConfig
from plasm.training.config import RunConfig
from plasm.training.phases import prediction_phase
from plasm.training.runs import read_history

MODEL: dict[str, Any] = {"encoder_dim": 8, "translator_dim": 16, "translator_depth": 1}


def run(kind: type[RunConfig], root: Path, out: Path, epochs: int, **options: Any) -> Path:
    training.run(
        kind(
            model="plasm_mmnist_tiny", data="mmnist", data_dir=str(root), out=str(out), epochs=epochs,
            clips_per_epoch=8, batch_size=4, val_clips=2, device="cpu", model_args=MODEL, **options,
        )
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run of phase 1, one of phase 2 from it, and another from that."""
    from plasm.data import SAMPLES

    root = tmp_path_factory.mktemp("runs")
    one = run(PretrainConfig, SAMPLES, root / "one", 1)
    two = run(TrainConfig, SAMPLES, root / "two", 2, init=str(one))
    return [one, two, run(TrainConfig, SAMPLES, root / "three", 1, init=str(two))]


@pytest.fixture
def common(tmp_path: Path) -> dict[str, Any]:
    return {"model": "plasm_mmnist_tiny", "data": "mmnist", "data_dir": "none", "out": str(tmp_path)}


def test_a_run_of_phase_2_gives_the_whole_model(chain: list[Path], common: dict[str, Any]) -> None:
    common |= {"init": str(chain[1]), "model_args": MODEL}
    model = timm.create_model("plasm_mmnist_tiny", **MODEL)
    prediction_phase(model, TrainConfig(**common))
    saved = load_file(chain[1] / "model.safetensors")
    assert set(saved) == set(model.state_dict())
    assert all(torch.equal(saved[name], tensor) for name, tensor in model.state_dict().items())
    # The encoder was frozen after phase 1; from here on it trains, unless the configuration says otherwise.
    assert all(p.requires_grad for p in model.parameters())
    prediction_phase(model, TrainConfig(**common, freeze_encoder=True))
    assert not any(p.requires_grad for p in model.encoder.parameters())


def test_training_goes_on_from_published_weights(common: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """On a user's own clips: other channels, other frame counts."""
    changes = {"in_chans": 3, "in_frames": 4, "out_frames": 6}
    expected = timm.create_model("plasm_mmnist_tiny", pretrained=True, **changes).state_dict()
    caplog.clear()
    for name in ("plasm_mmnist_tiny", "plasm_mmnist_tiny.mmnist"):
        model = timm.create_model("plasm_mmnist_tiny", **changes)
        prediction_phase(model, TrainConfig(**common, init=name, model_args=changes))
        assert all(torch.equal(expected[name], tensor) for name, tensor in model.state_dict().items())
        assert all(p.requires_grad for p in model.parameters())
    assert "loaded as they are all tensors but" in caplog.text


@pytest.mark.parametrize(
    ("init", "args", "message"),
    [
        ("TWO", {**MODEL, "translator_depth": 2}, "does not fit the model: .* missing: translator"),
        ("TWO", {}, r"two does not fit the model: .* of another shape: encoder"),
        ("plasm_mmnist_tiny", MODEL, "does not fit the model"),
        ("plasm_kth", {}, "plasm_kth holds a plasm_kth, not a plasm_mmnist_tiny"),
        ("nowhere", {}, "nowhere is not there"),
    ],
)
def test_what_does_not_fit_is_said(
    chain: list[Path], common: dict[str, Any], init: str, args: dict[str, Any], message: str
) -> None:
    common |= {"init": str(chain[1]) if init == "TWO" else init, "model_args": args}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prediction_phase(timm.create_model("plasm_mmnist_tiny", **args), TrainConfig(**common))


def test_a_run_knows_those_that_led_to_it(chain: list[Path]) -> None:
    history = read_history(chain[2])
    assert [recipe["command"] for recipe in history] == ["pretrain", "train", "train"]
    assert [recipe["clips"] for recipe in history] == [8, 16, 8]
    assert [Path(recipe["out"]) for recipe in history] == chain
    assert [recipe["command"] for recipe in read_history(chain[0])] == ["pretrain"]


def test_the_card_has_every_run(chain: list[Path]) -> None:
    def card() -> list[str]:
        text = weights.Card(data="mmnist", runs=read_history(chain[2])).render(chain[2], config, None)
        return text.partition("## Data and recipe\n\n")[2].partition("\n\n## ")[0].splitlines()

    config = json.loads((chain[2] / "config.json").read_text())
    config["weights"] = {"file": "model.safetensors", "size": 1, "sha256": "0" * 64}
    first, _, *runs = card()
    assert first == "Trained on `mmnist`, 24 clips seen in phase 2."
    assert [line.partition(":")[0] for line in runs] == [
        "* phase 1 (masked autoencoding)", "* phase 2 (prediction)", "* phase 2 (prediction)",
    ]  # fmt: skip
    assert all(text in line for text, line in zip(("epochs 1, ", "epochs 2, ", "epochs 1, "), runs, strict=True))
    chain[1].rename(chain[1].with_name("moved"))
    try:
        assert card()[2] == "* earlier: weights not at hand any more"
        assert card()[0] == "Trained on `mmnist`, 8 clips seen in phase 2."
    finally:
        chain[1].with_name("moved").rename(chain[1])
    alone = weights.Card(data="mmnist", runs=[{"command": "train", "clips": 3}]).render(chain[2], config, None)
    assert "* phase 1 (masked autoencoding): none\n* phase 2 (prediction): clips 3" in alone


def test_public_weights_are_part_of_the_history(chain: list[Path], tmp_path: Path) -> None:
    """A name that everyone can load is told, a path of one machine is not."""
    for init, told in (("plasm_mmnist_tiny.mmnist", "plasm_mmnist_tiny.mmnist"), ("/gone", "not at hand any more")):
        copy = shutil.copytree(chain[1], tmp_path / told.partition(".")[0])
        config = copy / "config.toml"
        config.write_text(config.read_text().replace(f'init = "{chain[0]}"', f'init = "{init}"'))
        assert read_history(copy)[0] == {"weights": told}
