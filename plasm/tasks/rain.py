"""Prediction of rain, by what its forecasters are measured by.

Shapes: B clips, T' output frames, C channels, H x W pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .losses import check_shapes
from .prediction import Prediction
from .task import Losses, check_options

_FEW = 20.0
"""Cells that are added to counts, so that a batch without an event has no say."""


class RainPrediction(Prediction):
    """Predict rain, as pixels x of ``plasm.data.radar.normalize``; see ``Prediction``.

    The loss has three terms, each without cells of weight 0. A squared error would pay for drying: where a shower may
    be at either of two positions, it is least for a little rain at both.

    A batch that is cut into parts has the ratios of each part, averaged.

    * ``csi``: 1 - CSI. An event of a threshold c is o = [x >= c] in the truth, and s = sigmoid((x - c) / width) in the
      forecast; hits are sum s o, and CSI = hits / (sum s + sum o - hits), of each lead time over the batch, averaged
      over lead times and thresholds.
    * ``bias``: ``bias_weight`` times the mean of log^2(sum s / sum o): as much rain as there is.
    * ``error``: ``error_weight`` times the mean of w |x - y|, with the weight w of the data set: 1 + heavy y.

    Args:
        model: See ``Prediction``.
        rollout: See ``Prediction``.
        thresholds: c, in pixels; by default those of .1, .5, 1, 2 and 5 mm/h, less half a step of the data set's 254.
        width: In pixels.
        bias_weight: Of the bias.
        error_weight: Of the absolute error.
        margin: Cells at each edge of a crop that the loss leaves out: rain comes in there that no frame has shown.

    Raises:
        ValueError: If an option is no number from 0 on (of ``margin``, a whole one), or there is no threshold.
    """

    # Its terms are ratios of sums over what it is given.
    divisible = False

    def __init__(
        self,
        model: nn.Module,
        rollout: int = 1,
        thresholds: Sequence[float] = (0.0949, 0.2484, 0.3331, 0.4235, 0.5475),
        width: float = 0.03,
        bias_weight: float = 0.1,
        error_weight: float = 2.0,
        margin: int = 16,
    ) -> None:
        super().__init__(model, rollout)
        check_options(width=width, bias_weight=bias_weight, error_weight=error_weight, margin=margin)
        if not isinstance(margin, int):
            raise ValueError(f"margin is a whole number of cells, got {margin!r}")
        if not isinstance(thresholds, list | tuple) or None in thresholds:
            raise ValueError(f"thresholds are several numbers, such as (0.1, 0.5), got {thresholds!r}")
        for threshold in thresholds:
            check_options(thresholds=threshold)
        if not thresholds or not width:
            raise ValueError(f"rain has a threshold and a width above 0, got {thresholds} and {width}")
        self.thresholds, self.width, self.margin = tuple(thresholds), width, margin
        self.bias_weight, self.error_weight = bias_weight, error_weight

    def training_step(self, clip: Tensor, target: Tensor, step: int, weight: Tensor | None) -> tuple[Losses, Tensor]:
        """See ``Prediction``."""
        prediction = self.forecast(clip)
        weight = torch.ones_like(target) if weight is None else weight[:, self.in_frames :]
        return self.rain_losses(prediction.float(), target, weight), prediction

    def rain_losses(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Losses:
        """Of a forecast and what should come out, (B, F, C, H, W) each, and the weights of the truth's cells.

        Raises:
            ValueError: If the shapes differ.
        """
        check_shapes(prediction, target, weight)
        prediction, target, weight = (self._inside(each) for each in (prediction, target, weight))
        covered = (weight > 0).to(prediction.dtype)
        score, bias = prediction.new_zeros(()), prediction.new_zeros(())
        for threshold in self.thresholds:
            said = covered * ((prediction - threshold) / self.width).sigmoid()
            seen = covered * (target >= threshold)
            hits, said, seen = (each.sum((0, 2, 3, 4)) for each in (said * seen, said, seen))
            score = score + ((hits + _FEW) / (said + seen - hits + _FEW)).mean() / len(self.thresholds)
            bias = bias + ((said + _FEW) / (seen + _FEW)).log().square().mean() / len(self.thresholds)
        error = (weight * (prediction - target).abs()).sum() / covered.sum().clamp_min(1)
        return {"csi": 1 - score, "bias": self.bias_weight * bias, "error": self.error_weight * error}

    def _inside(self, frames: Tensor) -> Tensor:
        height, width = frames.shape[-2:]
        if min(height, width) <= 2 * self.margin:
            return frames
        return frames[..., self.margin : height - self.margin, self.margin : width - self.margin]
