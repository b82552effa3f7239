"""What a step shows, and what it costs, of models whose forecasts are known."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from plasm.tasks import ScheduledSampling, ScheduledSamplingL1, TeacherForcing, sampling_mask, total_loss

IN_FRAMES, OUT_FRAMES = 3, 3


class Scale(nn.Module):
    """Each forecast is the weight times the frame before it."""

    in_frames, out_frames, in_chans, out_chans = IN_FRAMES, OUT_FRAMES, 1, 1

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        # One filter of one channel, whose moment is 3 where 1 is wanted.
        self.derivative_filters = torch.full((1, 1, 1, 1), 3.0)
        self.shown: list[Tensor] = []

    def forward(self, clip: Tensor) -> Tensor:
        frames = [clip[:, -1]]
        for _ in range(OUT_FRAMES):
            frames.append(self.weight * frames[-1])
        return torch.stack(frames[1:], 1)

    def unroll(self, clip: Tensor, target: Tensor, shown: Tensor) -> tuple[Tensor, list[int]]:
        self.shown.append(shown)
        frames = torch.cat([clip, target], 1)
        forecasts = [self.weight * frames[:, 0]]
        for index in range(1, frames.shape[1] - 1):
            seen = shown[:, index - 1].view(-1, 1, 1, 1)
            forecasts.append(self.weight * torch.where(seen, frames[:, index], forecasts[-1]))
        return torch.stack(forecasts, 1), list(range(len(forecasts)))


class Memories(Scale):
    """Of state number s, increments with a cosine of 1 / (s + 1) to each other."""

    def increments(self, state: int) -> tuple[Tensor, Tensor]:
        cosine = 1 / (state + 1)
        return torch.tensor([[1.0, 0.0]]), -torch.tensor([[cosine, math.sqrt(1 - cosine**2)]])


CLIPS = torch.tensor([1.0, 2, 3, 4, 5, 6]).view(1, 6, 1, 1, 1)
INDEX = torch.tensor([0])
# With a weight of 1/2 and every frame shown, forecasts are half of the frames before: errors of 1.5 to 3.5.
SHOWN = [1.5, 2.0, 2.5, 3.0, 3.5]
# With none of the last shown: forecasts of .5, 1, 1.5, .75, .375.
HIDDEN = [1.5, 2.0, 2.5, 4.25, 5.625]


def mean_square(errors: list[float]) -> float:
    return sum(error**2 for error in errors) / len(errors)


def losses(task: Any, step: int = 0, clips: Tensor = CLIPS) -> dict[str, float]:
    torch.manual_seed(0)
    return {name: loss.item() for name, loss in task.train()(clips, INDEX, 0, step)[0].items()}


def test_sampling_schedules() -> None:
    torch.manual_seed(0)

    def share(step: int, reverse: bool) -> tuple[float, float]:
        shown = sampling_mask(4000, 3, 3, step, 1000, reverse).float().mean(0)
        return shown[:2].mean().item(), shown[2:].mean().item()

    assert share(0, False) == pytest.approx((1, 0.999), abs=0.02)
    assert share(749, False) == pytest.approx((1, 0.25), abs=0.02)
    assert share(2000, False) == (1, 0)
    assert share(100, True) == pytest.approx((0.5, 0.5), abs=0.02)
    assert share(600, True) == pytest.approx((1 - 0.5 * 2.718281828**-1, 0.4), abs=0.02)
    assert share(1000, True) == (1, 0)
    shown = sampling_mask(4000, 3, 3, 600, 1000, True, alpha=50).float().mean(0)
    assert shown[:2].mean().item() == pytest.approx(1 - 0.5 * 2.718281828**-2, abs=0.02)
    assert not sampling_mask(100, 1, 3, 0, 0, False).any()


def test_a_step_costs_the_squared_errors_of_all_frames_but_the_first() -> None:
    task = ScheduledSampling(Scale(), sampling_stop=10**9)
    assert losses(task) == {"mse": pytest.approx(mean_square(SHOWN))}
    assert losses(task, step=10**9) == {"mse": pytest.approx(mean_square(HIDDEN))}
    _, seen = task(CLIPS, INDEX, 0, 10**9)
    assert seen.prediction.flatten().tolist() == [1.5, 0.75, 0.375]
    # In validation the model is called, and what counts is its forecast.
    found, seen = task.eval()(CLIPS, INDEX, None, 0)
    assert seen.prediction.flatten().tolist() == [1.5, 0.75, 0.375]
    assert found["mse"].item() == pytest.approx(mean_square(HIDDEN[2:]))


def test_a_rollout_is_a_longer_forecast() -> None:
    task = ScheduledSampling(Scale(), rollout=2, sampling_stop=0)
    clips = torch.zeros(1, 9, 1, 1, 1)
    clips[:, :3] = 8
    _, seen = task(clips, INDEX, 0, 0)
    assert seen.prediction.flatten().tolist() == [4, 2, 1, 0.5, 0.25, 0.125]


def test_clips_that_are_too_short_for_it_are_refused() -> None:
    for rollout, clips in ((1, CLIPS[:, :-1]), (2, CLIPS)):
        with pytest.raises(ValueError, match=f"clips of {IN_FRAMES + rollout * OUT_FRAMES}$"):
            ScheduledSampling(Scale(), rollout=rollout)(clips, INDEX, 0, 0)


def test_what_is_shown_is_the_schedules() -> None:
    model = Scale()
    task, clips = ScheduledSampling(model, sampling_stop=1000, reverse_sampling=True), CLIPS.expand(4000, -1, 1, 1, 1)
    torch.manual_seed(0)
    task(clips, torch.arange(4000), 0, 600)
    assert model.shown[0].float().mean(0).tolist() == pytest.approx([0.816, 0.816, 0.4, 0.4], abs=0.03)
    ScheduledSampling(model, sampling_stop=1000, reverse_sampling=True, sampling_alpha=50)(clips, INDEX, 0, 600)
    assert model.shown[1].float().mean(0)[:2].tolist() == pytest.approx([0.932] * 2, abs=0.03)


def test_e3dlstm_adds_the_absolute_error() -> None:
    """Section 4.1: L1 + L2."""
    found = losses(ScheduledSamplingL1(Scale(), sampling_stop=0))
    assert found == {"mse": pytest.approx(mean_square(HIDDEN)), "l1": pytest.approx(sum(HIDDEN) / 5)}


def test_predrnnv2_adds_the_decoupling_of_every_step() -> None:
    """Section 3.3: the mean of |cos| over the steps, by a weight."""
    found = losses(ScheduledSampling(Memories(), sampling_stop=0, decouple_weight=0.1))
    assert found["decoupling"] == pytest.approx(0.1 * (1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 5)
    assert found["mse"] == pytest.approx(mean_square(HIDDEN))
    assert losses(ScheduledSampling(Memories(), decouple_weight=0.0))["decoupling"] == 0
    with pytest.raises(ValueError, match="Scale has no memories to decouple"):
        ScheduledSampling(Scale(), decouple_weight=0.1)


def test_phydnet_sums_over_frames_and_holds_its_filters() -> None:
    """Eq. 11: the squared errors of all frames, summed, and Eq. 10."""
    task = TeacherForcing(Scale(), forcing_steps=0)
    # Five frames; and the one moment is 3, not 1.
    assert losses(task) == {"mse": pytest.approx(5 * mean_square(HIDDEN)), "moments": pytest.approx(4.0)}
    task = TeacherForcing(Scale(), forcing_steps=10**9)
    assert losses(task)["mse"] == pytest.approx(5 * mean_square(SHOWN))


def test_teacher_forcing_is_of_whole_batches_and_falls_with_the_step() -> None:
    model = Scale()
    task, clips = TeacherForcing(model, forcing_steps=1000), CLIPS.expand(8, -1, 1, 1, 1)
    assert [task.chance(step) for step in (0, 250, 500, 900, 1000, 2000)] == [
        1, 0.75, 0.5, pytest.approx(0.1), 0, 0,
    ]  # fmt: skip
    for step in (250, 750):
        model.shown.clear()
        torch.manual_seed(0)
        for _ in range(1000):
            task(clips, torch.arange(8), 0, step)
        shown = torch.stack(model.shown)
        assert shown[:, :, :2].all()
        assert torch.equal(shown[:, :, 2:].any((1, 2)), shown[:, :, 2:].all((1, 2)))
        assert shown[:, 0, 2].float().mean().item() == pytest.approx(1 - step / 1000, abs=0.05)
    # The authors take .003 off with each epoch of 625 steps.
    assert TeacherForcing(model).chance(100 * 625) == pytest.approx(1 - 100 * 0.003, abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "options", "error"),
    [
        (ScheduledSampling, {"rollout": 0}, "rollout is a number of forecasts, a whole number above 0, got 0"),
        (ScheduledSampling, {"sampling_stop": -1}, "sampling_stop is a number from 0 on, got -1"),
        (ScheduledSampling, {"sampling_stop": "soon"}, "sampling_stop is a number from 0 on, got 'soon'"),
        (ScheduledSampling, {"sampling_alpha": 0}, "sampling_alpha is a number of steps, above 0, got 0"),
        (ScheduledSampling, {"sampling_alpha": "x"}, "sampling_alpha is a number of steps, above 0, got 'x'"),
        (ScheduledSampling, {"reverse_sampling": "no"}, "reverse_sampling is True or False, got 'no'"),
        (ScheduledSamplingL1, {"sampling_stop": True}, "sampling_stop is a number from 0 on, got True"),
        (TeacherForcing, {"forcing_steps": float("nan")}, "forcing_steps is a number from 0 on, got nan"),
    ],
)
def test_options_that_make_no_sense_are_refused(kind: Any, options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        kind(Scale(), **options)


def test_the_sum_is_what_is_minimised() -> None:
    task = ScheduledSampling(Memories(), decouple_weight=0.1)
    found, _ = task(CLIPS, INDEX, 0, 0)
    assert total_loss(found) == found["mse"] + found["decoupling"]
    with pytest.raises(ValueError, match="at least one"):
        total_loss({})


@pytest.mark.parametrize("kind", [ScheduledSampling, ScheduledSamplingL1, TeacherForcing])
def test_pixels_without_weight_count_nothing(kind: Any) -> None:
    weight = torch.ones_like(CLIPS)
    weight[:, 3] = 0
    weight[:, 4] = 4
    found, _ = kind(Scale(), **{"forcing_steps" if kind is TeacherForcing else "sampling_stop": 0})(
        CLIPS, INDEX, 0, 0, weight
    )
    # The third error is left out, and the fourth squared error counts four times.
    weighed = [*HIDDEN[:2], 0, 2 * HIDDEN[3], HIDDEN[4]]
    assert found["mse"].item() == pytest.approx(mean_square(weighed) * (5 if kind is TeacherForcing else 1))
    if kind is ScheduledSamplingL1:
        assert found["l1"].item() == pytest.approx(sum(weighed) / 5)
