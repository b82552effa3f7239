"""The two phases of PLA-SM's training (Section III-G): what goes into the model, and what should come out.

Shapes: B clips, T input frames, T' output frames, C channels, H x W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from plasm.data import pixel_mask
from plasm.models import MaskedAutoencoder

from .config import PretrainConfig
from .runs import frame_counts

__all__ = ["Phase", "prediction_phase", "pretraining_phase"]


@dataclass(frozen=True)
class Phase:
    """What the trainer needs to know of a phase. The loss is the mean squared error of both (Eq. 4, Eq. 5).

    Attributes:
        name: "pretraining" or "prediction".
        model: Trained and saved: its parameters that require a gradient are optimised.
        inputs: Maps clips (B, T + T', C, H, W), their index (B,) and the epoch (None for evaluation, which no seed and
            no epoch changes) to the model's inputs and its target.
        shown: Maps the model's inputs to the clip that a picture shows as the input.
    """

    name: str
    model: nn.Module
    inputs: Callable[[Tensor, Tensor, int | None], tuple[tuple[Tensor | None, ...], Tensor]]
    shown: Callable[..., Tensor]


def pretraining_phase(model: nn.Module, config: PretrainConfig) -> Phase:
    """Phase 1: rebuild the T input frames from masked ones; the target is the unmasked clip (Eq. 4).

    Raises:
        ValueError: If the model has no ``encoder`` and ``decoder`` to pretrain.
    """
    if not (hasattr(model, "encoder") and hasattr(model, "decoder") and hasattr(model.encoder, "num_features")):
        raise ValueError(
            f"phase 1 trains model.encoder, called with (frames, visible) and with num_features, and model.decoder; "
            f"{type(model).__name__} has not all of these"
        )
    attn_mask_ratio = config.attn_mask_ratio if config.spatial_masking else None
    autoencoder = MaskedAutoencoder(model.encoder, model.decoder, config.mask_ratio, attn_mask_ratio, config.mask_patch)  # type: ignore[arg-type]
    in_frames, _ = frame_counts(model)

    def inputs(clips: Tensor, index: Tensor, epoch: int | None) -> tuple[tuple[Tensor | None, ...], Tensor]:
        clip = clips[:, :in_frames]
        if config.mask_ratio == 0:
            return (clip, None), clip
        height, width = clip.shape[-2:]
        seed, epoch = (0, 0) if epoch is None else (config.seed, epoch)
        visible = pixel_mask(
            index, clip.shape[1], height, width, config.mask_ratio, config.mask_patch, seed=seed, epoch=epoch
        )
        return (clip, visible), clip

    def shown(clip: Tensor, visible: Tensor | None) -> Tensor:
        return clip if visible is None else clip * visible.view(*clip.shape[:2], 1, *clip.shape[3:])

    return Phase("pretraining", autoencoder, inputs, shown)


def prediction_phase(model: nn.Module, freeze_encoder: bool = False) -> Phase:
    """Phase 2: predict T' frames from T (Eq. 5).

    Args:
        model: With the weights that training begins with.
        freeze_encoder: Keep the encoder as it is, as the paper does after phase 1.

    Raises:
        ValueError: If the encoder is to be frozen, and the model has no ``freeze_encoder``.
    """
    if hasattr(model, "freeze_encoder"):
        model.freeze_encoder(freeze_encoder)  # type: ignore[operator]
    elif freeze_encoder:
        raise ValueError(f"{type(model).__name__} has no freeze_encoder(frozen): --no-freeze-encoder trains all of it")
    first, out_frames = frame_counts(model)
    last = first + out_frames

    def inputs(clips: Tensor, index: Tensor, epoch: int | None) -> tuple[tuple[Tensor | None, ...], Tensor]:
        return (clips[:, :first],), clips[:, first:last]

    return Phase("prediction", model, inputs, lambda clip: clip)
