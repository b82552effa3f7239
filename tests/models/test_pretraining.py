from typing import Any

import pytest
import torch
from torch import Tensor, nn

from plasm.layers import SpatialMasking, random_pixel_mask
from plasm.models import PLASM, MaskedAutoencoder

SMALL: dict[str, Any] = {"in_frames": 3, "out_frames": 3, "encoder_dim": 8, "translator_dim": 16, "translator_depth": 1}


def autoencoder(mask_ratio: float = 0.5, **kwargs: Any) -> MaskedAutoencoder:
    model = PLASM(**SMALL)
    return MaskedAutoencoder(model.encoder, model.decoder, mask_ratio, **kwargs)


def test_it_is_encoder_spatial_masking_decoder() -> None:
    model, clip = autoencoder(), torch.rand(2, 3, 1, 16, 16)
    visible = random_pixel_mask(6, 16, 16, 0.5)
    features = model.encoder(clip.flatten(0, 1), visible)
    expected = model.decoder(model.spatial_masking(features)).unflatten(0, (2, 3))
    torch.testing.assert_close(model(clip, visible), expected)
    assert isinstance(model.spatial_masking, SpatialMasking)


def test_what_is_masked_changes_nothing() -> None:
    model, clip = autoencoder(), torch.rand(2, 3, 1, 16, 16)
    visible = random_pixel_mask(6, 16, 16, 0.9)
    poisoned = clip.masked_fill(~visible.unflatten(0, (2, 3)), float("nan"))
    torch.testing.assert_close(model(poisoned, visible), model(clip, visible), rtol=0, atol=0)


def test_backward_reaches_every_parameter() -> None:
    model, clip = autoencoder(0.9), torch.rand(2, 3, 1, 16, 16)
    nn.functional.mse_loss(model(clip), clip).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("size", [(16, 16), (17, 23)])
def test_with_everything_visible_it_is_the_dense_encoder(size: tuple[int, int]) -> None:
    model, clip = autoencoder(), torch.rand(2, 3, 1, *size)
    everything = torch.ones(6, 1, *size, dtype=torch.bool)
    model.mask_ratio = 0
    out = model(clip)
    assert out.shape == clip.shape
    torch.testing.assert_close(model(clip, everything), out, atol=1e-5, rtol=1e-4)


def test_a_mask_is_drawn_when_none_is_given() -> None:
    model, clip = autoencoder(0.75, mask_patch=4), torch.rand(1, 3, 1, 16, 16)
    seen: list[Tensor] = []
    model.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    torch.manual_seed(3)
    model(clip)
    torch.manual_seed(3)
    assert torch.equal(seen[0], random_pixel_mask(3, 16, 16, 0.75, 4))


def test_everything_hidden_gives_no_nan() -> None:
    model, clip = autoencoder(1.0), torch.rand(1, 3, 1, 16, 16)
    loss = model(clip).square().mean()
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_without_spatial_masking() -> None:
    model = autoencoder(attn_mask_ratio=None)
    assert not any("spatial_masking" in name for name, _ in model.named_parameters())
    assert model(torch.rand(1, 3, 1, 16, 16)).shape == (1, 3, 1, 16, 16)


def test_it_takes_any_encoder_and_decoder() -> None:
    """Table VII pretrains other people's models."""

    class Stem(nn.Module):
        num_features = 6

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 6, 4, 4)

        def forward(self, frames: Tensor, visible: Tensor | None = None) -> Tensor:
            return self.conv(frames if visible is None else frames.masked_fill(~visible, 0))

    model = MaskedAutoencoder(Stem(), nn.ConvTranspose2d(6, 1, 4, 4), 0.5)
    clip = torch.rand(2, 5, 1, 16, 16)
    assert model(clip).shape == clip.shape


def test_it_holds_the_modules_it_was_given() -> None:
    plasm = PLASM(**SMALL)
    model = MaskedAutoencoder(plasm.encoder, plasm.decoder, 0.5)
    assert model.encoder is plasm.encoder
    assert model.decoder is plasm.decoder


@pytest.mark.slow
def test_bf16_and_the_compiled_model_agree_with_it() -> None:
    model, clip = autoencoder(), torch.rand(2, 3, 1, 16, 16)
    visible = random_pixel_mask(6, 16, 16, 0.5)
    expected = model(clip, visible)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(clip, visible).float()
    assert (out - expected).square().mean().sqrt() < 0.05 * expected.square().mean().sqrt()
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(compiled(clip, visible), expected, atol=1e-4, rtol=1e-4)


def test_errors_say_what_is_wrong() -> None:
    model, clip = autoencoder(), torch.rand(2, 3, 1, 16, 16)
    with pytest.raises(ValueError, match=r"\(B, T, C, H, W\), got \(3, 1, 16, 16\)"):
        model(clip[0])
    with pytest.raises(ValueError, match=r"\(6, 1, 16, 16\), got torch.bool, \(2, 1, 16, 16\)"):
        model(clip, torch.ones(2, 1, 16, 16, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"\[0, 1\], got 2"):
        autoencoder(2)
