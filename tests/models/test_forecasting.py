"""A forecast depends on the model and the clip alone."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import plasm
from plasm.evaluation import Forecast, evaluate, forecast
from plasm.exporting import load_exported
from plasm.models import VideoModel, forecasting
from plasm.prediction import PredictConfig, predict


@contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


AMBIENT: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradient": torch.no_grad,
    "default dtype": default_dtype,
    "default device": lambda: torch.device("meta"),
}
SMALL: dict[str, dict[str, Any]] = {
    # BatchNorm, dropout by depth, a recurrence, an own predict each.
    "simvp_gsta_mmnist": {
        "in_frames": 2, "out_frames": 2, "encoder_dim": 4, "translator_dim": 8, "encoder_depth": 2,
        "translator_depth": 2,
    },
    "predrnn_mmnist": {
        "in_frames": 2, "out_frames": 2, "img_size": 16, "patch_size": 2, "hidden_dims": (8,), "kernel_size": 3,
    },
    "predformer_mmnist": {"in_frames": 2, "out_frames": 2, "patch_size": 4, "dim": 16, "depth": 4, "num_heads": 2},
    "plasm_mmnist_tiny": {
        "in_frames": 2, "out_frames": 2, "encoder_dim": 4, "translator_dim": 8, "translator_depth": 1,
    },
}  # fmt: skip


class OwnModel(nn.Module):
    """Of a user: no predict, dropout and BatchNorm, and makes a tensor of the default dtype."""

    in_chans, in_frames, out_frames = 1, 2, 2

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix, self.drop = nn.BatchNorm3d(2), nn.Conv3d(2, 2, 1), nn.Dropout(0.5)

    def forward(self, clip: Tensor) -> Tensor:
        return self.drop(self.mix(self.norm(clip))) * torch.ones(1)


class OwnPredict(OwnModel):
    def predict(self, clip: Tensor, num_frames: int) -> Tensor:
        return self(clip)[:, :num_frames]


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    own = {"own": OwnModel, "own predict": OwnPredict}
    return own[name]() if name in own else timm.create_model(name, **SMALL[name])


def clips(batch: int = 3) -> Tensor:
    return torch.rand(batch, 2, 1, 16, 16, generator=torch.Generator().manual_seed(1))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


WAYS: dict[str, Callable[[nn.Module], Forecast]] = {
    "predict": lambda model: model.predict,  # type: ignore[dict-item,return-value]
    "forecast": forecast,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [*SMALL, "own", "own predict"])
def test_a_forecast_is_of_the_model_and_the_clip_alone(name: str, way: str) -> None:
    model, clip = make(name), clips()
    if way == "predict" and name.startswith("own"):
        pytest.skip("its own")
    modes = [module.training for module in model.modules()]
    modes[-1] = False  # As of a part that is frozen.
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    before = state(model)
    ways = WAYS[way](model)
    expected = ways(clip, 2)
    assert torch.equal(WAYS[way](make(name).eval())(clip, 2), expected)
    torch.testing.assert_close(ways(clip[:1], 2), expected[:1])
    for title, ambient in AMBIENT.items():
        with ambient():
            out = ways(clip, 2)
        assert torch.equal(out, expected), title
        assert not out.is_inference()
        assert not out.requires_grad
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["simvp_gsta_mmnist", "own", "own predict"])
def test_evaluation_too(name: str) -> None:
    model = make(name)
    dataset = torch.utils.data.TensorDataset(torch.rand(5, 4, 1, 16, 16))
    clip_set: Any = [clip for (clip,) in dataset]
    # A user may give a method of a model as it is.
    ways = {"forecast": forecast(model)} | ({"predict": model.predict} if hasattr(model, "predict") else {})
    expected = evaluate({"forecast": forecast(make(name).eval())}, clip_set, 2, 2, batch_size=5)["forecast"].means
    before = state(model)
    for ambient in AMBIENT.values():
        with ambient():
            table = evaluate(ways, clip_set, 2, 2, batch_size=2)  # type: ignore[arg-type]
        for title, metrics in table.items():
            assert metrics.means == pytest.approx(expected, rel=1e-5), title
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("ambient", AMBIENT)
def test_an_export_too(ambient: str, tmp_path: Path) -> None:
    """Of a model in training mode: its file computes the same outside."""
    model = make("own")
    clip = clips()
    expected = forecast(model)(clip, 2)
    file = tmp_path / "m.pt2"
    with AMBIENT[ambient]():
        plasm.export(model, file, "pt2", size=(16, 16))
    loaded = load_exported(file)
    torch.testing.assert_close(loaded(clip), expected)
    with AMBIENT[ambient]():
        torch.testing.assert_close(loaded(clip), expected)
    assert model.training


def test_the_command_too(tmp_path: Path) -> None:
    np.save(tmp_path / "clip.npy", np.random.default_rng(0).random((10, 16, 16), dtype=np.float32))
    config = PredictConfig(input=str(tmp_path / "clip.npy"), out=str(tmp_path / "out"), frames=1)
    expected = predict(config).frames
    with ExitStack() as all_of_them:
        for ambient in AMBIENT.values():
            all_of_them.enter_context(ambient())
        assert torch.equal(predict(config).frames, expected)


def fail(model: nn.Module) -> None:
    with forecasting(model):
        assert not model.training
        assert not torch.is_autocast_enabled("cpu")
        assert torch.get_default_dtype() is torch.float32
        raise ValueError("stop")


def test_what_was_is_restored_after_an_error_too() -> None:
    model = make("own")
    with torch.autocast("cpu", torch.bfloat16), default_dtype():
        with pytest.raises(ValueError, match="stop"):
            fail(model)
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_default_dtype() is torch.float64
    assert model.norm.training
    assert torch.is_grad_enabled()


def test_a_model_without_arithmetic_says_so() -> None:
    """Forward and forecast are each made of the other: one of them has to be defined."""
    with pytest.raises(NotImplementedError, match="VideoModel defines neither forward nor forecast"):
        VideoModel(1, 2, 2)(torch.rand(1, 2, 1, 8, 8))
