"""Each loss against its paper's formula, written out."""

import math

import pytest
import torch

from plasm.layers.phycell import kernel_moments
from plasm.tasks import absolute_error, decoupling, differential_divergence, mean_squared_error, moment_loss, weigh


def test_errors_are_means_over_all_numbers() -> None:
    prediction, target = torch.tensor([0.0, 1, 2, 5]), torch.tensor([1.0, 1, 0, 1])
    shape = (1, 2, 1, 1, 2)
    both = prediction.view(shape), target.view(shape)
    assert mean_squared_error(*both).item() == (1 + 0 + 4 + 16) / 4
    assert absolute_error(*both).item() == (1 + 0 + 2 + 4) / 4
    for loss in (mean_squared_error, absolute_error):
        with pytest.raises(ValueError, match=r"gives \(1, 2, 1, 1, 2\) where the clips need \(1, 2, 1, 1, 1\)"):
            loss(both[0], both[1][..., :1])


def test_no_loss_takes_a_forecast_of_another_shape() -> None:
    """Weights, too: what weighs a forecast of one frame would make it one of as many as the target has."""
    target = torch.rand(2, 4, 1, 3, 3)
    for prediction in (target[:, :1], target[:1]):
        for loss in (mean_squared_error, absolute_error, differential_divergence):
            with pytest.raises(ValueError, match="where the clips need"):
                loss(prediction, target)
        with pytest.raises(ValueError, match="where the clips need"):
            weigh(prediction, target, torch.ones_like(target))
        with pytest.raises(ValueError, match="weights are"):
            weigh(target, target, torch.ones_like(prediction))
    assert torch.equal(weigh(target, target, None), target)


def test_differential_divergence_is_its_formula() -> None:
    """TAU, Eq. 6 to 8."""
    prediction, target = torch.rand(2, 2, 4, 1, 3, 3).unbind(0)
    total = 0.0
    for b in range(2):
        for t in range(3):
            p, q = ((clip[b, t + 1] - clip[b, t]).flatten().div(0.1).exp() for clip in (prediction, target))
            p, q = p / p.sum(), q / q.sum()
            total += (p * (p / q).log()).sum().item()
    assert differential_divergence(prediction, target).item() == pytest.approx(total / (2 * 3 * 9), rel=1e-4)
    assert differential_divergence(prediction[:, :2], target[:, :2]) == 0


def test_decoupling_is_the_size_of_the_cosine() -> None:
    """PredRNNv2, Eq. 7: |<c, m>| / (|c| |m|) of each layer, clip and channel."""
    c = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    m = torch.tensor([[-4.0, -3.0], [0.0, 2.0]])
    assert decoupling(c, m).item() == pytest.approx((24 / 25 + 0) / 2)
    assert decoupling(c, -c).item() == pytest.approx(1)
    with pytest.raises(ValueError, match=r"\(2, 2\) to c and \(1, 2\) to m"):
        decoupling(c, m[:1])


def test_filters_with_one_moment_are_derivatives_and_cost_nothing() -> None:
    """PhyDNet, Eq. 10: filters that the loss has nothing against differentiate polynomials exactly."""
    k = 7
    offsets = torch.arange(k, dtype=torch.float64) - 3
    powers = torch.stack([offsets**i / math.factorial(i) for i in range(k)])
    inverse = torch.linalg.inv(powers)
    wanted = torch.eye(k * k, dtype=torch.float64).view(k * k, k, k)
    kernels = inverse @ wanted @ inverse.T
    torch.testing.assert_close(kernel_moments(kernels), wanted)
    assert moment_loss(kernels[:, None]) < 1e-12
    rows, columns = torch.meshgrid(offsets, offsets, indexing="ij")
    polynomial = 2 + rows**2 * columns + 3 * columns**3
    # d2/drow2 d/dcolumn is 2, d3/dcolumn3 is 18, and the value in the middle 2.
    for order, value in ((2 * k + 1, 2.0), (3, 18.0), (0, 2.0)):
        torch.testing.assert_close((kernels[order] * polynomial).sum().item(), value)
    # Of k^2 filters of zeros for each of five channels, one moment of k^2 is wrong, by 1, in each.
    torch.testing.assert_close(moment_loss(torch.zeros(k * k, 5, k, k)), torch.tensor(5 / (k * k)))
