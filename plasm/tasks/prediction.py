"""Prediction: from T frames to the T' that follow, all at once.

Shapes: B clips, T input frames, T' output frames, C channels, H x W pixels.
"""

import torch
from torch import Tensor, nn

from .losses import differential_divergence, mean_squared_error, weigh
from .task import Losses, Outputs, Task, check_options, frame_counts


class Prediction(Task):
    """Predict T' frames from T; the loss is their mean squared error (Eq. 5 of PLA-SM, arXiv 2311.11289).

    Args:
        model: What is trained: ``forward(clip)``, ``in_frames`` and ``out_frames``.
        rollout: K, forecasts in a row that a training step takes. Each but the first begins with the last T frames of
            clip and forecasts before it, as ``predict`` feeds them back, and the loss is that of all K * T' frames.

    Raises:
        ValueError: If K is no whole number above 0, or more than 1 and the model's output cannot be its input.
    """

    def __init__(self, model: nn.Module, rollout: int = 1) -> None:
        super().__init__(model)
        self.in_frames, self.out_frames = frame_counts(model)
        if not isinstance(rollout, int) or isinstance(rollout, bool) or rollout < 1:
            raise ValueError(f"rollout is a number of forecasts, a whole number above 0, got {rollout!r}")
        self.rollout = rollout
        if rollout > 1 and getattr(model, "in_chans", None) != getattr(model, "out_chans", None):
            raise ValueError(
                f"{type(model).__name__} gives other channels than it takes and cannot be fed back: rollout 1"
            )

    def forward(
        self, clips: Tensor, index: Tensor, epoch: int | None, step: int, weight: Tensor | None = None
    ) -> tuple[Losses, Outputs]:
        """See ``Task``. Validation is of one forecast, by its mean squared error."""
        clip, target = clips.tensor_split([self.in_frames], 1)
        target = target[:, : (self.rollout if self.training else 1) * self.out_frames]
        weight = None if weight is None else weight[:, : self.in_frames + target.shape[1]]
        later = None if weight is None else weight[:, self.in_frames :]
        if self.training:
            losses, prediction = self.training_step(clip, target, step, weight)
        else:
            prediction = self.model(clip)
            losses = {"mse": mean_squared_error(weigh(prediction.float(), target, later), target)}
        prediction = prediction.float()
        return losses, Outputs(
            clip, target, prediction if later is None else torch.where(later > 0, prediction, target)
        )

    def training_step(self, clip: Tensor, target: Tensor, step: int, weight: Tensor | None) -> tuple[Losses, Tensor]:
        """The losses of a step, and its forecast.

        Args:
            clip: (B, T, C, H, W).
            target: (B, K * T', C, H, W).
            step: How many steps the optimizer has taken.
            weight: Of the pixels of both, (B, T + K * T', C, H, W).

        Returns:
            The losses, and the forecast, of the target's shape.
        """
        prediction = self.forecast(clip)
        weighed = weigh(prediction, target, None if weight is None else weight[:, self.in_frames :])
        return self.losses(weighed, target), prediction

    def forecast(self, clip: Tensor) -> Tensor:
        """K forecasts in a row, (B, K * T', C, H, W), of a clip (B, T, C, H, W)."""
        prediction: Tensor = self.model(clip)
        if self.rollout > 1:
            # Gradients of a forecast come from the loss and through the next one: they add up in single precision.
            prediction = prediction.float()
        for _ in range(self.rollout - 1):
            window = torch.cat([clip, prediction], 1)[:, -self.in_frames :]
            prediction = torch.cat([prediction, self.model(window).float()], 1)
        return prediction

    def losses(self, prediction: Tensor, target: Tensor) -> Losses:
        """Of a forecast (B, F, C, H, W) and what should come out."""
        return {"mse": mean_squared_error(prediction, target)}


class DivergencePrediction(Prediction):
    """Prediction by the squared error and the differential divergence: Eq. 9 of TAU (arXiv 2206.12126).

    Args:
        model: See ``Prediction``.
        rollout: See ``Prediction``.
        divergence_weight: Of the divergence, alpha in the paper.

    Raises:
        ValueError: If the weight is negative; else see ``Prediction``.
    """

    def __init__(self, model: nn.Module, rollout: int = 1, divergence_weight: float = 0.1) -> None:
        super().__init__(model, rollout)
        check_options(divergence_weight=divergence_weight)
        self.divergence_weight = divergence_weight

    def losses(self, prediction: Tensor, target: Tensor) -> Losses:
        """See ``Prediction``."""
        divergence = self.divergence_weight * differential_divergence(prediction, target)
        return {**super().losses(prediction, target), "divergence": divergence}
