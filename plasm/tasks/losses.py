"""Losses of the systems, each a function of tensors.

Shapes: B clips, F frames, C channels, H x W pixels, D hidden channels, h x w positions, k side of a filter.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from plasm.layers.phycell import kernel_moments


def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error, averaged over clips, frames, channels and pixels.

    Args:
        prediction: (B, F, C, H, W).
        target: Of the same shape.

    Raises:
        ValueError: If the shapes differ, where torch would broadcast.
    """
    check_shapes(prediction, target)
    return F.mse_loss(prediction.float(), target)


def absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Absolute error, averaged as the squared one; E3D-LSTM (Section 4.1) takes the sum of both.

    Raises:
        ValueError: If the shapes differ.
    """
    check_shapes(prediction, target)
    return F.l1_loss(prediction.float(), target)


def differential_divergence(prediction: Tensor, target: Tensor, temperature: float = 0.1) -> Tensor:
    """How differently two clips change: Eq. 6 to 8 of TAU (Tan et al., CVPR 2023, arXiv 2206.12126).

    The differences of frames that follow each other become a distribution over a frame's pixels, by a softmax; the
    divergence is p log(p / q), with p of the prediction and q of the target. As in the authors' code it is the mean
    over pixels, differences and clips, where the formula has a sum over pixels, and of clips of two frames or one, it
    is 0.

    Args:
        prediction: (B, F, C, H, W).
        target: Of the same shape.
        temperature: What the differences are divided by.

    Returns:
        A scalar.

    Raises:
        ValueError: If the shapes differ.
    """
    check_shapes(prediction, target)
    if prediction.shape[1] <= 2:
        return prediction.new_zeros(())
    p, q = (F.log_softmax(clip.float().diff(dim=1).flatten(2) / temperature, -1) for clip in (prediction, target))
    return (p.exp() * (p - q)).mean()


def decoupling(delta_c: Tensor, delta_m: Tensor) -> Tensor:
    """How alike the increments of two memories are: Eq. 7 of PredRNNv2 (Wang et al., TPAMI 2023, arXiv 2103.09504).

    Args:
        delta_c: What a step adds to the memories c, (..., D, h * w).
        delta_m: What it adds to m, of the same shape.

    Returns:
        The mean of |cos| between them, over positions; a scalar.

    Raises:
        ValueError: If the shapes differ.
    """
    if delta_c.shape != delta_m.shape:
        raise ValueError(f"a step adds {tuple(delta_c.shape)} to c and {tuple(delta_m.shape)} to m: no pairs")
    return F.cosine_similarity(delta_c, delta_m, dim=-1).abs().mean()


def moment_loss(weight: Tensor) -> Tensor:
    """How far filters are from derivatives: Eq. 10 of PhyDNet (Le Guen, Thome, CVPR 2020, arXiv 2003.01460).

    Filter number k i + j is held to the moment matrix with a 1 at i, j.

    Args:
        weight: (k^2, D, k, k), as of ``PhyCell.derivatives``.

    Returns:
        The sum over D of the mean squared error of k^2 moment matrices, a scalar in single precision.
    """
    k = weight.shape[-1]
    wanted = torch.eye(k * k, dtype=torch.float64, device=weight.device).view(k * k, 1, k, k)
    return (kernel_moments(weight) - wanted).square().mean((0, 2, 3)).sum().float()


def weigh(prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Shrink errors, so that a pixel's squared error counts ``weight`` times, and not at all where that is 0.

    Args:
        prediction: Of any shape.
        target: Of the same shape.
        weight: Of the same shape, at least 0; None leaves the prediction as it is.

    Returns:
        target + sqrt(weight) (prediction - target).

    Raises:
        ValueError: If the shapes differ.
    """
    # What comes out would have the target's shape, and no loss would see that the prediction had not.
    check_shapes(prediction, target, weight)
    return prediction if weight is None else target + weight.sqrt() * (prediction - target)


def check_shapes(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
    """Check that a forecast has the shape of what should come out, and the weights of its pixels, too.

    Raises:
        ValueError: If it has not.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"the model gives {tuple(prediction.shape)} where the clips need {tuple(target.shape)}")
    if weight is not None and weight.shape != target.shape:
        raise ValueError(f"the weights are {tuple(weight.shape)} where the clips need {tuple(target.shape)}")
