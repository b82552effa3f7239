import pytest
import torch
from torch import Tensor, nn

from plasm.tasks import DivergencePrediction, Prediction, differential_divergence


class Counts(nn.Module):
    """Two frames to three: numbers from a weight on."""

    in_frames, out_frames = 2, 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(10.0))

    def forward(self, clip: Tensor) -> Tensor:
        return (self.weight + torch.arange(3.0)).view(1, 3, 1, 1, 1)


CLIPS = torch.arange(6.0).view(1, 6, 1, 1, 1)


def test_prediction_is_of_the_frames_that_follow() -> None:
    losses, seen = Prediction(Counts())(CLIPS, torch.tensor([0]), 0, 0)
    assert (seen.shown.flatten().tolist(), seen.target.flatten().tolist()) == ([0, 1], [2, 3, 4])
    assert seen.prediction.flatten().tolist() == [10, 11, 12]
    assert {name: loss.item() for name, loss in losses.items()} == {"mse": 64}


class Next(nn.Module):
    """Two frames to one: their weighted sum."""

    in_frames, out_frames, in_chans, out_chans = 2, 1, 1, 1

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([2.0, 3.0]))

    def forward(self, clip: Tensor) -> Tensor:
        return (self.weights.view(2, 1, 1, 1) * clip).sum(1, keepdim=True)


def test_a_rollout_is_fed_back_in_training_with_its_gradient() -> None:
    task = Prediction(Next(), rollout=3)
    clips = torch.tensor([1.0, 1, 0, 0, 0]).view(1, 5, 1, 1, 1)
    losses, seen = task(clips, torch.tensor([0]), 0, 0)
    # Of a and b, the weights: a + b; a + b (a + b); a (a + b) + b (a + b (a + b)).
    assert seen.prediction.flatten().tolist() == [5, 17, 61]
    assert losses["mse"].item() == (25 + 17**2 + 61**2) / 3
    a, b = torch.tensor(2.0, requires_grad=True), torch.tensor(3.0, requires_grad=True)
    first = a + b
    second = a + b * first
    third = a * first + b * second
    ((first**2 + second**2 + third**2) / 3).backward()
    losses["mse"].backward()
    assert task.model.weights.grad.tolist() == [a.grad.item(), b.grad.item()]  # type: ignore[union-attr]
    assert task.eval()(clips, torch.tensor([0]), None, 0)[1].prediction.flatten().tolist() == [5]
    with pytest.raises(ValueError, match="Counts gives other channels"):
        Prediction(type("Counts", (Counts,), {"in_chans": 1})(), rollout=2)


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ValueError, match=r"gives \(1, 3, 1, 1, 1\) where the clips need \(1, 2, 1, 1, 1\)"):
        Prediction(Counts())(CLIPS[:, :4], torch.tensor([0]), 0, 0)
    with pytest.raises(ValueError, match="Linear does not say how many frames it maps to how many"):
        Prediction(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="divergence_weight is a number from 0 on, got -1"):
        DivergencePrediction(Counts(), divergence_weight=-1)
    with pytest.raises(ValueError, match=r"gives \(1, 3, 1, 1, 1\) where the clips need \(1, 2, 1, 1, 1\)"):
        DivergencePrediction(Counts())(CLIPS[:, :4], torch.tensor([0]), 0, 0)
    for rollout in (0, -1, 2.5, True, "2"):
        with pytest.raises(ValueError, match="rollout is a number of forecasts, a whole number above 0, got"):
            Prediction(Next(), rollout=rollout)  # type: ignore[arg-type]


def test_tau_adds_a_tenth_of_the_divergence() -> None:
    """Eq. 9, whose alpha is .1; over all frames of a rollout, too."""
    clips = torch.rand(2, 6, 1, 1, 2)
    for rollout in (3, 4):
        losses, seen = DivergencePrediction(Next(), rollout)(clips, torch.arange(2), 0, 0)
        assert losses["divergence"] == 0.1 * differential_divergence(seen.prediction, seen.target) != 0
        assert losses["mse"] == (seen.prediction - seen.target).square().mean()
    assert DivergencePrediction(Next(), 3, divergence_weight=2.0)(clips, torch.arange(2), 0, 0)[0]["divergence"] > 0.2


def test_pixels_without_weight_count_nothing() -> None:
    weight = torch.ones(1, 6, 1, 1, 1)
    weight[:, 3] = 0
    weight[:, 4] = 2.25
    losses, seen = Prediction(Counts())(CLIPS, torch.tensor([0]), 0, 0, weight)
    # Frames 2, 3 and 4 are forecast as 10, 11 and 12.
    assert losses["mse"].item() == pytest.approx((64 + 0 + 2.25 * 64) / 3)
    assert seen.prediction.flatten().tolist() == [10, 3, 12]
