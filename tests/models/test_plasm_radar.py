from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import timm
import torch
from tester import BaseModelTester
from torch import Tensor, nn

from plasm.models import family_of
from plasm.models.plasm_radar import FAMILY, PLASMRadar
from plasm.rain.forecasts import tiled

SMALL: dict[str, Any] = {"translator_dim": 16, "translator_depth": 2}


class TestPLASMRadar(BaseModelTester):
    models = quick_graphs = ("plasm_radar",)
    parameters: Mapping[str, int] = {"plasm_radar": 630_972}
    arguments: Mapping[str, Mapping[str, Any]] = {"plasm_radar": SMALL}
    size = (32, 48)
    padding = "replicate"

    def not_promised(self, name: str) -> dict[str, str]:
        return {
            "train_equals_eval": "in training a forecast is not given the amounts of rain that there were",
            "other_channels": "a forecast is the last frame moved, which has the channels of the clip",
            "compile": "it does, but takes a minute: too long for a test",
            "export": "it works, in ONNX Runtime and OpenVINO, too, but takes minutes: too long for a test",
        }

    # In eval mode the amounts are those of the clip that is given, padding or not.
    @pytest.mark.parametrize("size", [(17, 23), (10, 9)])
    def test_odd_sizes(self, name: str, model: nn.Module, size: tuple[int, int]) -> None:
        super().test_odd_sizes(name, model.train(), size)

    # Of noise, cells that are equal but for rounding change places in eval mode.
    def test_clips_do_not_see_each_other(self, model: nn.Module) -> None:
        super().test_clips_do_not_see_each_other(model.train())

    def test_channels_last(self, model: nn.Module) -> None:
        super().test_channels_last(model.train())

    def blocks(self, model: nn.Module) -> Iterator[nn.Module]:
        yield from model.translator.convnext
        yield from model.translator.pla


def shower(places: Tensor, size: tuple[int, int], radius: float = 8.0) -> Tensor:
    """Round showers, (1, T, 1, H, W), around places (T, 2)."""
    rows, columns = torch.arange(size[0])[:, None], torch.arange(size[1])
    squares = [(rows - y) ** 2 + (columns - x) ** 2 for x, y in places.tolist()]
    return 0.6 * torch.stack([torch.exp(-each / (2 * radius**2)) for each in squares])[None, :, None]


def untrained() -> PLASMRadar:
    """One whose network says nothing: optical flow alone."""
    model = timm.create_model("plasm_radar", **SMALL).eval()
    nn.init.zeros_(model.translator.out_proj.weight)
    return model


def test_the_family_is_its_own() -> None:
    assert family_of("plasm_radar") is FAMILY


@pytest.mark.parametrize("step", [(3.0, -2.0), (-1.5, 2.5), (0.0, 0.0), (6.0, 4.0)])
def test_a_shower_goes_on_as_it_went(step: tuple[float, float]) -> None:
    size = (128, 160)
    times = torch.arange(18)[:, None]
    # So that it is in the middle halfway.
    places = torch.tensor([80.0, 64.0]) + (times - 10) * torch.tensor(step)
    clip = shower(places, size)
    forecast = untrained().predict(clip[:, :6], 12)
    for lead in (0, 5):
        truth, persistence = clip[:, 6 + lead], clip[:, 5]
        error = (forecast[:, lead] - truth).abs().mean()
        still = (persistence - truth).abs().mean()
        assert error < (0.001 if still == 0 else 0.1 * still), lead


def test_corrections_are_bounded() -> None:
    model = timm.create_model("plasm_radar", **SMALL).eval()
    nn.init.constant_(model.translator.out_proj.bias, 1e6)
    clip = torch.rand(1, 6, 1, 64, 64)
    assert model.train()(clip).max() <= 2 + 0.3 + 1e-5


@pytest.mark.parametrize(("side", "place"), [(128, 64.0), (81, 72.0)])
def test_a_forecast_has_the_rain_that_there_was(side: int, place: float) -> None:
    """At the corner, too, where the frame is padded."""
    torch.manual_seed(0)
    model = timm.create_model("plasm_radar", **SMALL).eval()
    nn.init.normal_(model.translator.out_proj.weight, std=0.1)
    clip = shower(torch.tensor([place, place]).expand(6, 2), (side, side))
    forecast = model.predict(clip, 12)
    for pixel in (0.1, 0.335, 0.5):
        said, seen = (forecast >= pixel).sum((2, 3, 4)).float(), (clip[:, -1] >= pixel).sum().float()
        assert ((said / seen - 1).abs() < 0.05).all()


def test_what_lies_far_away_does_not_matter() -> None:
    """No norm, attention or motion looks at the whole composite, most of which may be dry or not covered."""
    torch.manual_seed(0)
    model = timm.create_model("plasm_radar", **SMALL).eval()
    nn.init.normal_(model.translator.out_proj.weight, std=0.1)
    places = torch.tensor([60.0, 64.0]) + torch.arange(6)[:, None] * torch.tensor([1.0, 0.0])
    clip = shower(places, (128, 256))
    wide = torch.cat([clip, torch.zeros(1, 6, 1, 128, 512)], -1)
    # In order; the amounts in eval mode are of the whole.
    model.train()
    here, there = (model(each)[..., :128].detach() for each in (clip, wide))
    assert (there - here).abs().max() < 0.01 * here.abs().max()


@pytest.mark.parametrize("size", [(64, 64), (100, 83), (65, 127)])
def test_any_size(size: tuple[int, int]) -> None:
    out = timm.create_model("plasm_radar", **SMALL).predict(torch.rand(2, 6, 1, *size), 12)
    assert out.shape == (2, 12, 1, *size)
    assert out.isfinite().all()


def test_dry_clips_stay_finite() -> None:
    out = timm.create_model("plasm_radar", **SMALL).predict(torch.zeros(1, 6, 1, 64, 64), 12)
    assert out.isfinite().all()
    assert untrained().predict(torch.zeros(1, 6, 1, 64, 64), 12).abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_precision_forecast(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = timm.create_model("plasm_radar", **SMALL).train()
    nn.init.normal_(model.translator.out_proj.weight, std=0.1)
    clip = shower(torch.tensor([32.0, 32.0]) + torch.arange(6)[:, None], (64, 64)).to(dtype)
    # Of the same clip, rounded as it is.
    expected = model(clip.float())
    out = model.to(dtype)(clip)
    assert (out.float() - expected).square().mean().sqrt() < 0.02 * expected.square().mean().sqrt()


@pytest.mark.parametrize("size", [(64, 64), (100, 83), (765, 700)])
def test_published_weights_forecast_any_size(size: tuple[int, int]) -> None:
    model = timm.create_model("plasm_radar", pretrained=True).eval()
    clip = shower(torch.tensor([32.0, 32.0]) + torch.arange(6)[:, None] * torch.tensor([1.0, 1.0]), size)
    out = model.predict(clip, 12)
    assert out.shape == (1, 12, 1, *size)
    assert out.isfinite().all()


def test_published_weights_move_rain_and_keep_it() -> None:
    model = timm.create_model("plasm_radar", pretrained=True).eval()
    places = torch.tensor([80.0, 64.0]) + (torch.arange(18)[:, None] - 10) * torch.tensor([2.0, -1.0])
    clip = shower(places, (128, 160), radius=12)
    events = (model.predict(clip[:, :6], 12) >= 0.3351) & (clip[:, 6:] >= 0.3351)
    persistent = (clip[:, 5:6] >= 0.3351) & (clip[:, 6:] >= 0.3351)
    for lead in (2, 5, 8, 11):
        assert events[:, lead].sum() > persistent[:, lead].sum()
        assert events[:, lead].sum() > 0.6 * (clip[:, 6 + lead] >= 0.3351).sum()


def test_tiles_are_the_whole_and_show_no_seam() -> None:
    """As large composites are forecast, at a smaller scale."""
    model = timm.create_model("plasm_radar", pretrained=True).eval()
    generator = torch.Generator().manual_seed(0)
    starts = torch.rand(20, 2, generator=generator) * torch.tensor([256.0, 192.0])
    steps = torch.tensor([1.5, -0.5])
    clip = torch.stack(
        [shower(torch.stack([start + t * steps for t in range(6)]), (192, 256), 10.0)[0] for start in starts]
    ).amax(0)[None]

    def predict(part: Tensor) -> Tensor:
        return model.predict(part, 12)

    whole, parts = predict(clip), tiled(predict, clip, 160, 96)
    difference = (whole - parts).abs()
    assert difference.mean() < 0.005
    # Over the seam neighbours differ no more than in the whole.
    for axis in (-1, -2):
        assert (parts.diff(dim=axis) - whole.diff(dim=axis)).abs().mean() < 0.002
