import copy
from typing import Any

import pytest
import torch
from torch.nn.utils import parametrizations, prune

import plasm
from plasm.data import SAMPLES, read_clips
from plasm.exporting.float16 import PEAK, _peaks, make_room


@pytest.fixture
def trained() -> Any:
    return plasm.create_model("plasm_mmnist_tiny", pretrained=True).eval()


@pytest.fixture
def clips() -> torch.Tensor:
    return read_clips(SAMPLES / "clips.npz", 1)[:, :10]


@torch.no_grad()
def test_float16_holds_what_it_did_not(trained: Any, clips: torch.Tensor) -> None:
    with_room = copy.deepcopy(trained)
    make_room(with_room, clips[:3])
    assert max(_peaks(trained, clips).values()) > 65_504
    assert max(_peaks(with_room, clips[:3]).values()) <= PEAK
    expected = trained(clips)
    torch.testing.assert_close(with_room(clips), expected, atol=2e-5, rtol=0)
    assert not trained.half()(clips.half()).isfinite().all()
    assert (with_room.half()(clips.half()) - expected).abs().max() < 0.01
    # Once is enough.
    again = copy.deepcopy(with_room.float())
    make_room(again, clips[:3])
    for one, other in zip(with_room.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"upsample": "pixelshuffle"},
        {"skip": False, "encoder_depth": 1},
        {"translator_depth": 1},
        {"encoder_depth": 2, "in_chans": 2, "out_chans": 3, "out_frames": 4},
    ],
)
def test_forecasts_stay_where_the_features_grow_from_block_to_block(options: dict[str, Any]) -> None:
    """An early block's are a millionth of a late one's: scaled alike they would fall below a norm's epsilon."""
    torch.manual_seed(0)
    model: Any = plasm.create_model("plasm_mmnist_tiny", encoder_dim=8, translator_dim=32, **options).eval()
    for block in model.translator.convnext:
        block.pwconv2.weight.mul_(1e5)
    clips = torch.rand(2, 10, model.in_chans, 64, 64)
    expected = model(clips)
    assert max(_peaks(model, clips).values()) > 1e5
    make_room(model, clips)
    assert max(_peaks(model, clips).values()) <= PEAK
    torch.testing.assert_close(model(clips), expected, atol=1e-5 * expected.abs().max().item(), rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(
    "change", [parametrizations.weight_norm, lambda conv: prune.l1_unstructured(conv, "weight", 0.3)]
)
def test_weights_that_are_computed_are_left(change: Any, clips: torch.Tensor) -> None:
    model: Any = plasm.create_model("plasm_mmnist_tiny", translator_dim=32).eval()
    model.translator.in_proj.weight.mul_(1e6)
    change(model.translator.convnext[0].pwconv2)
    before = model(clips[:1])
    make_room(model, clips[:1])
    torch.testing.assert_close(model(clips[:1]), before, atol=0, rtol=0)


def test_features_that_are_infinite_already_are_an_error(trained: Any, clips: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="not finite; if it is in float16, begin with float32"):
        make_room(trained.half(), clips[:1].half())


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [{"score": "sigmoid"}, {"attention": "channel"}, {"residual": True}, {"block": "conv7x7"}, {"encoder_depth": 1}],
)
def test_what_a_scale_would_change_is_left(options: dict[str, Any], clips: torch.Tensor) -> None:
    model: Any = plasm.create_model("plasm_mmnist_tiny", translator_dim=32, **options).eval()
    model.translator.in_proj.weight.mul_(1e6)
    before = copy.deepcopy(model.state_dict())
    make_room(model, clips[:1])
    torch.testing.assert_close(model.state_dict(), before, atol=0, rtol=0)


def test_half_precision_of_the_default_weights(trained: Any, tmp_path: Any) -> None:
    exported = plasm.export(trained, tmp_path / "half.onnx", half=True)
    assert exported.difference < 1e-3 * exported.range
