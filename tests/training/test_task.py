from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

from plasm.data import SAMPLES
from plasm.distributed import ALONE
from plasm.loading import load_model
from plasm.training import PretrainConfig, TrainConfig
from plasm.training.assembly import _check_weights, prepare
from plasm.training.task import Prediction, Pretraining, freeze_encoder

MODEL: dict[str, Any] = {"encoder_dim": 8, "translator_dim": 16, "translator_depth": 1}
GIVEN: dict[str, Any] = {"model": "m", "data": "d", "data_dir": "d", "out": "o"}


class Counts(nn.Module):
    """Two frames to three: numbers from a weight on."""

    in_frames, out_frames = 2, 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(10.0))

    def forward(self, clip: Tensor) -> Tensor:
        return (self.weight + torch.arange(3.0)).view(1, 3, 1, 1, 1)


class OwnLoss(Counts):
    def training_loss(self, clip: Tensor, target: Tensor, step: int) -> tuple[Tensor, Tensor]:
        return self.weight * step, torch.zeros_like(target)


CLIPS = torch.arange(6.0).view(1, 6, 1, 1, 1)


def test_prediction_is_of_the_frames_that_follow() -> None:
    loss, seen = Prediction(Counts())(CLIPS, torch.tensor([0]), 0, 0)
    assert (seen.shown.flatten().tolist(), seen.target.flatten().tolist()) == ([0, 1], [2, 3, 4])
    assert seen.prediction.flatten().tolist() == [10, 11, 12]
    assert loss.item() == 64


def test_a_models_own_loss_is_asked_for_in_training_alone() -> None:
    task = Prediction(OwnLoss())
    loss, seen = task(CLIPS, torch.tensor([0]), 0, 7)
    assert (loss.item(), seen.prediction.abs().sum().item()) == (70, 0)
    loss, seen = task.eval()(CLIPS, torch.tensor([0]), None, 7)
    assert (loss.item(), seen.prediction.flatten().tolist()) == (64, [10, 11, 12])


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
    loss, seen = task(clips, torch.tensor([0]), 0, 0)
    # Of a and b, the weights: a + b; a + b (a + b); a (a + b) + b (a + b (a + b)).
    assert seen.prediction.flatten().tolist() == [5, 17, 61]
    assert loss.item() == (25 + 17**2 + 61**2) / 3
    a, b = torch.tensor(2.0, requires_grad=True), torch.tensor(3.0, requires_grad=True)
    first = a + b
    second = a + b * first
    third = a * first + b * second
    ((first**2 + second**2 + third**2) / 3).backward()
    loss.backward()
    assert task.model.weights.grad.tolist() == [a.grad.item(), b.grad.item()]  # type: ignore[union-attr]
    assert task.eval()(clips, torch.tensor([0]), None, 0)[1].prediction.flatten().tolist() == [5]
    with pytest.raises(ValueError, match="OwnLoss has a loss of its own"):
        Prediction(OwnLoss(), rollout=2)
    with pytest.raises(ValueError, match="Counts gives other channels"):
        Prediction(type("Counts", (Counts,), {"in_chans": 1})(), rollout=2)


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ValueError, match=r"gives \(1, 3, 1, 1, 1\) where the clips need \(1, 2, 1, 1, 1\)"):
        Prediction(Counts())(CLIPS[:, :4], torch.tensor([0]), 0, 0)
    with pytest.raises(ValueError, match="Counts has not all of these"):
        Pretraining(Counts(), PretrainConfig(**GIVEN))
    freeze_encoder(Counts(), False)
    with pytest.raises(ValueError, match="Counts has no freeze_encoder"):
        freeze_encoder(Counts(), True)


def test_the_first_phase_hides_pixels_from_the_model_and_not_from_the_loss() -> None:
    task = Pretraining(timm.create_model("plasm_mmnist_tiny", **MODEL), PretrainConfig(**GIVEN, mask_ratio=0.9))
    clips, index, masks = torch.rand(2, 20, 1, 64, 64), torch.tensor([5, 6]), []
    task.model.register_forward_pre_hook(lambda module, inputs: masks.append(inputs[1]))
    loss, seen = task(clips, index, 3, 0)
    visible = masks[0]
    assert torch.equal(seen.target, clips[:, :10])
    assert (~visible).sum((1, 2, 3)).tolist() == [3686] * 20
    assert torch.equal(seen.shown != 0, visible.view(2, 10, 1, 64, 64) & (seen.target != 0))
    torch.testing.assert_close(loss, (seen.prediction - seen.target).square().mean())
    task(clips[1:], index[1:], 3, 0)
    assert torch.equal(masks[1], visible[10:])
    # Masks of validation are of no seed and no epoch.
    other = Pretraining(
        timm.create_model("plasm_mmnist_tiny", **MODEL), PretrainConfig(**GIVEN, mask_ratio=0.9, seed=9)
    )
    assert torch.equal(other.draw_mask(clips[:, :10], index, None), task.draw_mask(clips[:, :10], index, None))
    assert not torch.equal(other.draw_mask(clips[:, :10], index, 3), visible)


def test_a_mask_ratio_that_ends_elsewhere() -> None:
    """In equal steps of epochs, to all pixels seen; validation stays as it is."""
    config = PretrainConfig(**GIVEN, mask_ratio=0.9, mask_ratio_end=0.0, epochs=4)
    task = Pretraining(timm.create_model("plasm_mmnist_tiny", **MODEL), config)
    clip, index = torch.zeros(1, 10, 1, 10, 10), torch.tensor([0])
    masks = [task.draw_mask(clip, index, epoch) for epoch in (0, 1, 2, 3, None)]
    assert [(~mask).sum().item() / 10 for mask in masks if mask is not None] == [90, 60, 30, 0, 90]
    with pytest.raises(ValueError, match=r"mask_ratio_end lies in \[0, 1\], got 2.0"):
        Pretraining(timm.create_model("plasm_mmnist_tiny", **MODEL), PretrainConfig(**GIVEN, mask_ratio_end=2.0))


def test_ablations_of_the_first_phase() -> None:
    plain = PretrainConfig(**GIVEN, mask_ratio=0.0, spatial_masking=False)
    task = Pretraining(timm.create_model("plasm_mmnist_tiny", **MODEL), plain)
    clips = torch.rand(1, 20, 1, 64, 64)
    _, seen = task(clips, torch.tensor([0]), 0, 0)
    assert torch.equal(seen.shown, clips[:, :10])
    assert {name.split(".")[0] for name, _ in task.model.named_parameters()} == {"encoder", "decoder"}
    assert seen.prediction.shape == seen.target.shape


class Noted(nn.Module):
    """Notes the step that its loss is of, and what it draws there; a three-dimensional convolution is no trouble."""

    in_frames, out_frames = 10, 10
    seen: list[tuple[int, float]]

    def __init__(self) -> None:
        super().__init__()
        self.seen = []
        self.body = nn.Conv3d(10, 10, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, clip: Tensor) -> Tensor:
        frames: Tensor = self.body(clip)
        return frames

    def training_loss(self, clip: Tensor, target: Tensor, step: int) -> tuple[Tensor, Tensor]:
        self.seen.append((step, torch.rand(()).item()))
        prediction = self(clip)
        return (prediction - target).abs().mean(), prediction


@register_model
def noted(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return build_model_with_cfg(Noted, "noted", pretrained, kwargs_filter=("num_classes", "in_chans"), **kwargs)


def test_a_loss_knows_its_step_and_draws_by_it(tmp_path: Path) -> None:
    def config(name: str) -> TrainConfig:
        return TrainConfig(
            model="noted", data="mmnist", data_dir=str(SAMPLES), out=str(tmp_path / name), epochs=2, clips_per_epoch=4,
            batch_size=2, val_clips=1, device="cpu",
        )  # fmt: skip

    whole: Any = prepare(config("whole"), ALONE, resume=False)
    whole.fit()
    parts: Any = prepare(config("parts"), ALONE, resume=False)
    parts.fit(epochs=1)
    resumed: Any = prepare(config("parts"), ALONE, resume=True)
    resumed.fit()
    steps = whole.task.model.seen
    assert [step for step, _ in steps] == [0, 1, 2, 3]
    assert len({drawn for _, drawn in steps}) == 4
    assert parts.task.model.seen + resumed.task.model.seen == steps
    one, two = (load_model("noted", str(tmp_path / name)) for name in ("whole", "parts"))
    assert torch.equal(one.state_dict()["body.weight"], two.state_dict()["body.weight"])


def test_pixels_without_weight_count_nothing() -> None:
    weight = torch.ones(1, 6, 1, 1, 1)
    weight[:, 3] = 0
    weight[:, 4] = 2.25
    loss, seen = Prediction(Counts())(CLIPS, torch.tensor([0]), 0, 0, weight)
    # Frames 2, 3 and 4 are forecast as 10, 11 and 12.
    assert loss.item() == pytest.approx((64 + 0 + 2.25 * 64) / 3)
    assert seen.prediction.flatten().tolist() == [10, 3, 12]


@pytest.mark.parametrize("name", ["tau", "convlstm", "phydnet", "e3dlstm"])
def test_own_losses_take_weights(name: str) -> None:
    model: Any = timm.create_model(f"{name}_mmnist_tiny", in_frames=3, out_frames=3).eval()
    clip, target = torch.rand(2, 1, 3, 1, 64, 64).unbind()

    def loss(weight: Tensor | None) -> float:
        torch.manual_seed(0)
        with torch.no_grad():
            return float(model.training_loss(clip, target, 0, weight)[0])

    whole = loss(None)
    assert loss(torch.ones(1, 6, 1, 64, 64)) == pytest.approx(whole, rel=1e-5)
    half = torch.ones(1, 6, 1, 64, 64)
    half[..., 32:] = 0
    none = loss(torch.zeros(1, 6, 1, 64, 64))
    assert none <= loss(half) < whole
    # All that is left is what does not compare frames.
    assert none < 0.05 * whole or name == "phydnet"


def test_data_with_weights_needs_a_loss_that_takes_them() -> None:
    class Weighed:
        def get_weighed_batch(self, indices: list[int]) -> None: ...

    _check_weights(Prediction(Counts()), Counts(), Weighed())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the loss of OwnLoss takes no argument `weight`"):
        _check_weights(Prediction(OwnLoss()), OwnLoss(), Weighed())  # type: ignore[arg-type]
