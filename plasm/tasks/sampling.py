"""Training of models that predict frame by frame, which shows them true frames at times.

Shapes: B clips, T input frames, T' output frames, C channels, H x W pixels.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .losses import absolute_error, decoupling, mean_squared_error, moment_loss, weigh
from .prediction import Prediction
from .task import Losses, check_options


def sampling_mask(
    batch: int, in_frames: int, out_frames: int, step: int, stop: int, reverse: bool, alpha: float | None = None
) -> Tensor:
    """Which frames a training step shows as they are, where the others are the model's own forecasts.

    Scheduled sampling (Bengio et al., 2015, arXiv 1506.03099): the T frames always; each later one with a chance that
    falls from 1 to 0 over ``stop`` steps. Reverse scheduled sampling (PredRNNv2, Section 3.4): of the first T, too,
    each but the first with a chance, which is .5 for half of ``stop``, then 1 - .5 exp(-s / alpha) with s the steps
    since, and 1 after; each later one with .5 for the first half, then falling to 0. With a ``stop`` of 50,000, OpenSTL
    has an alpha of 5,000, the script of PredRNNv2's authors for Moving MNIST 2,500. Each clip is drawn on its own, from
    torch's generator.

    Args:
        batch: B.
        in_frames: T.
        out_frames: T'.
        step: Steps done before.
        stop: When sampling ends; 0 shows no later frame at all.
        reverse: Whether it is reverse.
        alpha: Steps in which the ratio of forecasts among the first T frames falls to 1 / e; stop / 10 by default.

    Returns:
        bool, (B, T + T' - 2): of the second frame to the last but one.
    """
    half = stop / 2
    before, after = 1.0, max(0.0, 1.0 - (step + 1) / stop) if stop else 0.0
    if reverse and step < stop:
        since = step - half
        before = 0.5 if since < 0 else 1.0 - 0.5 * math.exp(-since / (stop / 10 if alpha is None else alpha))
        after = 0.5 if since < 0 else 0.5 - 0.5 * since / half
    chances = torch.tensor([before] * (in_frames - 1) + [after] * (out_frames - 1))
    return torch.rand(batch, len(chances)) < chances


class FramePrediction(Prediction):
    """Predict every frame but the first, each from the true frame before or the model's own forecast of it.

    In training ``unroll(clip, target, mask)`` of the model gives the forecasts of all frames but the first,
    (B, T + T' - 1, C, H, W), and the states after each step. A subclass draws the scheduled-sampling mask.

    Args:
        model: See ``Prediction``; it has ``unroll``.
        rollout: K; forecasts of K * T' frames.
    """

    def training_step(self, clip: Tensor, target: Tensor, step: int, weight: Tensor | None) -> tuple[Losses, Tensor]:
        """See ``Prediction``.

        Raises:
            ValueError: If there are other frames than the K * T' that should come out, which no shape would show.
        """
        model: Any = self.model
        if target.shape[1] != (wanted := self.rollout * self.out_frames):
            raise ValueError(
                f"the model is to give {wanted} frames where the clips, of {clip.shape[1] + target.shape[1]}, need "
                f"{target.shape[1]}: give it clips of {self.in_frames + wanted}"
            )
        forecasts, states = model.unroll(clip, target, self.draw_mask(len(clip), target.shape[1], step))
        frames = torch.cat([clip, target], 1)[:, 1:]
        weighed = weigh(forecasts.float(), frames, None if weight is None else weight[:, 1:])
        return {**self.losses(weighed, frames), **self.state_losses(states)}, forecasts[:, -target.shape[1] :]

    def draw_mask(self, batch: int, out_frames: int, step: int) -> Tensor:
        """Which frames a step shows, of the second to the last but one: bool, (B, T + T' - 2)."""
        raise NotImplementedError

    def state_losses(self, states: Sequence[Any]) -> Losses:
        """Losses beyond those of frames, of the states after each step; none by default."""
        return {}


class ScheduledSampling(FramePrediction):
    """Scheduled sampling, or its reverse; see ``sampling_mask``.

    Args:
        model: See ``FramePrediction``.
        rollout: See ``FramePrediction``.
        sampling_stop: Training steps until no later input is a true frame.
        reverse_sampling: Reverse scheduled sampling.
        sampling_alpha: Of reverse sampling; see ``sampling_mask``.
        decouple_weight: Of the loss ``decoupling``, added where it is given. The model has ``increments(state)``, which
            gives what a step added to its memories c and m.

    Raises:
        ValueError: If an option is negative, or asks for what the model does not have.
    """

    def __init__(
        self,
        model: nn.Module,
        rollout: int = 1,
        sampling_stop: int = 50_000,
        reverse_sampling: bool = False,
        sampling_alpha: float | None = None,
        decouple_weight: float | None = None,
    ) -> None:
        super().__init__(model, rollout)
        check_options(sampling_stop=sampling_stop, decouple_weight=decouple_weight)
        if sampling_alpha is not None and not (isinstance(sampling_alpha, int | float) and sampling_alpha > 0):
            raise ValueError(f"sampling_alpha is a number of steps, above 0, got {sampling_alpha!r}")
        if not isinstance(reverse_sampling, bool):
            raise ValueError(f"reverse_sampling is True or False, got {reverse_sampling!r}")
        if decouple_weight is not None and not hasattr(model, "increments"):
            raise ValueError(f"{type(model).__name__} has no memories to decouple: leave decouple_weight out")
        self.sampling_stop, self.reverse_sampling, self.sampling_alpha = sampling_stop, reverse_sampling, sampling_alpha
        self.decouple_weight = decouple_weight

    def draw_mask(self, batch: int, out_frames: int, step: int) -> Tensor:
        """See ``sampling_mask``."""
        return sampling_mask(
            batch, self.in_frames, out_frames, step, self.sampling_stop, self.reverse_sampling, self.sampling_alpha
        )

    def state_losses(self, states: Sequence[Any]) -> Losses:
        """The decoupling of every step, averaged."""
        if self.decouple_weight is None:
            return {}
        model: Any = self.model
        weighted = [self.decouple_weight * decoupling(*model.increments(state)) for state in states]
        return {"decoupling": torch.stack(weighted).mean()}


class ScheduledSamplingL1(ScheduledSampling):
    """Scheduled sampling with the absolute error beside the squared one: E3D-LSTM, Section 4.1."""

    def losses(self, prediction: Tensor, target: Tensor) -> Losses:
        """See ``Prediction``."""
        return {**super().losses(prediction, target), "l1": absolute_error(prediction, target)}


class TeacherForcing(FramePrediction):
    """Squared errors summed over frames, and the moments of filters: PhyDNet, Eq. 10 and 11 (arXiv 2003.01460).

    The later inputs of a batch, or of each part of one that is cut, are all true frames or all forecasts, as in the
    authors' code.

    Args:
        model: See ``FramePrediction``; it has ``derivative_filters`` of shape (k^2, D, k, k), which ``moment_loss``
            holds to derivatives.
        rollout: See ``FramePrediction``.
        forcing_steps: Training steps over which the ratio of batches of true frames falls from 1 to 0.
            The authors take .003 off with each epoch; of 625 steps, these are 208,334 steps.

    Raises:
        ValueError: If ``forcing_steps`` is negative; else see ``Prediction``.
    """

    divisible = False

    def __init__(self, model: nn.Module, rollout: int = 1, forcing_steps: int = 208_334) -> None:
        super().__init__(model, rollout)
        check_options(forcing_steps=forcing_steps)
        self.forcing_steps = forcing_steps

    def losses(self, prediction: Tensor, target: Tensor) -> Losses:
        """See ``Prediction``; summed over frames."""
        return {"mse": mean_squared_error(prediction, target) * target.shape[1]}

    def state_losses(self, states: Sequence[Any]) -> Losses:
        """The moments of the filters."""
        model: Any = self.model
        return {"moments": moment_loss(model.derivative_filters)}

    def draw_mask(self, batch: int, out_frames: int, step: int) -> Tensor:
        """All the T frames, and all later ones or none."""
        mask = torch.ones(batch, self.in_frames + out_frames - 2, dtype=torch.bool)
        mask[:, self.in_frames - 1 :] = bool(torch.rand(()) < self.chance(step))
        return mask

    def chance(self, step: int) -> float:
        """Probability that a batch has true frames as inputs, after ``step`` steps."""
        return max(0.0, 1.0 - step / self.forcing_steps) if self.forcing_steps else 0.0
