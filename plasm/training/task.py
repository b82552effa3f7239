"""What a step of training is: from a batch of clips to a loss.

Shapes: B clips, T input frames, T' output frames, C channels, H x W pixels.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plasm.data import pixel_mask
from plasm.loading import frame_counts
from plasm.models import MaskedAutoencoder
from plasm.models.video_model import weigh
from plasm.runs import PretrainConfig

__all__ = ["Outputs", "Prediction", "Pretraining", "Task", "freeze_encoder"]


class Outputs(NamedTuple):
    """What a step gives besides its loss, for the look at validation clips.

    Attributes:
        shown: The clip that a picture shows as the input, (B, T, C, H, W).
        target: What should come out, (B, T', C, H, W).
        prediction: What came out, float, of the target's shape; the target itself where a pixel has no weight.
    """

    shown: Tensor
    target: Tensor
    prediction: Tensor


class Task(nn.Module):
    """A step of training, and of validation: a subclass defines ``forward``.

    Whatever a task draws, by torch's generator in training, is a function of the seed and the step: the trainer seeds
    it before each step. It keeps no state between calls.

    Args:
        model: What is trained, averaged, saved and, if asked for, compiled.

    Attributes:
        name: "prediction", unless the weights alone cannot predict; it stands in ``config.json`` of the run.
        follows: Whether the prediction follows what is shown, as frames of a clip do, or stands beside it.
    """

    name = "prediction"
    follows = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, clips: Tensor, index: Tensor, epoch: int | None, step: int, weight: Tensor | None = None
    ) -> tuple[Tensor, Outputs]:
        """Compute the loss of a batch, or of a process's part of it.

        Args:
            clips: (B, T + T', C, H, W), in [0, 1].
            index: Of the clips in their data set, int64, (B,).
            epoch: Counted from 0; None in validation, which no seed and no epoch changes.
            step: How many steps the optimizer has taken.
            weight: Of each pixel in the loss, of the clips' shape; 0 leaves it out. Given of a data set that has it.

        Returns:
            The loss, a scalar whose mean over the parts is that of the batch, and the outputs.
        """
        raise NotImplementedError


class Prediction(Task):
    """Phase 2: predict T' frames from T; the loss is their mean squared error (Eq. 5), or the model's own.

    A model that needs more in training has ``training_loss(clip, target, step) -> (loss, prediction)``: see
    ``plasm.models.VideoModel``.

    Args:
        model: What is trained.
        rollout: K, forecasts in a row that a training step takes. Each but the first begins with the last T frames of
            clip and forecasts before it, as ``predict`` feeds them back, and the loss is that of all K * T' frames.

    Raises:
        ValueError: If K is more than 1 and the model has a loss of its own, or its output cannot be its input.
    """

    def __init__(self, model: nn.Module, rollout: int = 1) -> None:
        super().__init__(model)
        self.in_frames, self.out_frames = frame_counts(model)
        self.rollout = rollout
        if rollout > 1 and hasattr(model, "training_loss"):
            raise ValueError(
                f"{type(model).__name__} has a loss of its own, and decides itself what it is fed: rollout 1"
            )
        if rollout > 1 and getattr(model, "in_chans", None) != getattr(model, "out_chans", None):
            raise ValueError(
                f"{type(model).__name__} gives other channels than it takes and cannot be fed back: rollout 1"
            )

    def forward(
        self, clips: Tensor, index: Tensor, epoch: int | None, step: int, weight: Tensor | None = None
    ) -> tuple[Tensor, Outputs]:
        """See ``Task``."""
        count = self.rollout if self.training else 1
        clip, target = clips.tensor_split([self.in_frames], 1)
        target = target[:, : count * self.out_frames]
        if self.training and hasattr(self.model, "training_loss"):
            kwargs = {} if weight is None else {"weight": weight[:, : self.in_frames + self.out_frames]}
            loss, prediction = self.model.training_loss(clip, target, step, **kwargs)  # type: ignore[operator]
            return loss, Outputs(clip, target, prediction.float())
        prediction = self.model(clip).float()
        for _ in range(count - 1):
            window = torch.cat([clip, prediction], 1)[:, -self.in_frames :]
            prediction = torch.cat([prediction, self.model(window).float()], 1)
        if weight is None:
            return _mean_squared_error(prediction, target), Outputs(clip, target, prediction)
        weight = weight[:, self.in_frames :][:, : target.shape[1]]
        loss = _mean_squared_error(weigh(prediction, target, weight), target)
        return loss, Outputs(clip, target, torch.where(weight > 0, prediction, target))


class Pretraining(Task):
    """Phase 1: rebuild the T input frames from masked ones; the target is the unmasked clip (Eq. 4).

    Args:
        model: Whose encoder and decoder are trained.
        config: How much is masked, and the seed.

    Raises:
        ValueError: If the model has no ``encoder`` and ``decoder`` to pretrain, or a ratio is outside [0, 1].
    """

    name = "pretraining"
    follows = False

    def __init__(self, model: nn.Module, config: PretrainConfig) -> None:
        encoder: Any = getattr(model, "encoder", None)
        decoder: Any = getattr(model, "decoder", None)
        if decoder is None or not hasattr(encoder, "num_features"):
            raise ValueError(
                f"phase 1 trains model.encoder, called with (frames, visible) and with num_features, and "
                f"model.decoder; {type(model).__name__} has not all of these"
            )
        if not 0 <= (config.mask_ratio_end or 0) <= 1:
            raise ValueError(f"mask_ratio_end lies in [0, 1], got {config.mask_ratio_end}")
        attn_mask_ratio = config.attn_mask_ratio if config.spatial_masking else None
        super().__init__(MaskedAutoencoder(encoder, decoder, config.mask_ratio, attn_mask_ratio, config.mask_patch))
        self.config, (self.in_frames, _) = config, frame_counts(model)

    def forward(
        self, clips: Tensor, index: Tensor, epoch: int | None, step: int, weight: Tensor | None = None
    ) -> tuple[Tensor, Outputs]:
        """See ``Task``."""
        clip = clips[:, : self.in_frames]
        visible = self.draw_mask(clip, index, epoch)
        rebuilt = self.model(clip, visible).float()
        shown = clip if visible is None else clip * visible.view(*clip.shape[:2], 1, *clip.shape[3:])
        if weight is None:
            return _mean_squared_error(rebuilt, clip), Outputs(shown, clip, rebuilt)
        weight = weight[:, : self.in_frames]
        loss = _mean_squared_error(weigh(rebuilt, clip, weight), clip)
        return loss, Outputs(shown, clip, torch.where(weight > 0, rebuilt, clip))

    def draw_mask(self, clip: Tensor, index: Tensor, epoch: int | None) -> Tensor | None:
        """Which pixels of a clip (B, T, C, H, W) are seen: bool, (B * T, 1, H, W); None for all of them."""
        config, (height, width) = self.config, clip.shape[-2:]
        if config.mask_ratio == 0 and not config.mask_ratio_end:
            return None
        ratio, patch = self.mask_ratio(epoch), config.mask_patch
        seed, epoch = (0, 0) if epoch is None else (config.seed, epoch)
        return pixel_mask(index, clip.shape[1], height, width, ratio, patch, seed=seed, epoch=epoch)

    def mask_ratio(self, epoch: int | None) -> float:
        """Share of the pixels that an epoch hides; of validation, r0."""
        first, last, epochs = self.config.mask_ratio, self.config.mask_ratio_end, self.config.epochs
        if epoch is None or last is None or epochs == 1:
            return first
        return first + (last - first) * epoch / (epochs - 1)


def freeze_encoder(model: nn.Module, frozen: bool) -> None:
    """Keep the encoder of a model as it is, as the paper does after phase 1, or train it.

    Raises:
        ValueError: If the encoder is to be frozen, and the model has no ``freeze_encoder``.
    """
    if hasattr(model, "freeze_encoder"):
        model.freeze_encoder(frozen)  # type: ignore[operator]
    elif frozen:
        raise ValueError(f"{type(model).__name__} has no freeze_encoder(frozen): --no-freeze-encoder trains all of it")


def _mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    if prediction.shape != target.shape:
        raise ValueError(f"the model gives {tuple(prediction.shape)} where the clips need {tuple(target.shape)}")
    return F.mse_loss(prediction, target)
