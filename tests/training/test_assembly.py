"""The tasks of both phases, as a run makes them."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn
from tqdm import tqdm

from plasm import training
from plasm.data import SAMPLES, create_dataset
from plasm.distributed import SINGLE_PROCESS
from plasm.models import Family, create_task, load_model
from plasm.runs import lock_folder
from plasm.tasks import Losses, Outputs, Prediction, Task, total_loss
from plasm.training import PretrainConfig, TrainConfig, Trainer
from plasm.training.assembly import _check_constructor, _check_weights, create_pretraining, freeze_encoder, prepare

MODEL: dict[str, Any] = {"encoder_dim": 8, "translator_dim": 16, "translator_depth": 1}
GIVEN: dict[str, Any] = {"model": "m", "data": "d", "data_dir": "d", "out": "o"}


def test_the_first_phase_hides_pixels_from_the_model_and_not_from_the_loss() -> None:
    task = create_pretraining(timm.create_model("plasm_mmnist_tiny", **MODEL), PretrainConfig(**GIVEN, mask_ratio=0.9))
    clips, index, masks = torch.rand(2, 20, 1, 64, 64), torch.tensor([5, 6]), []
    task.model.register_forward_pre_hook(lambda module, inputs: masks.append(inputs[1]))
    losses, seen = task(clips, index, 3, 0)
    visible = masks[0]
    assert torch.equal(seen.target, clips[:, :10])
    assert (~visible).sum((1, 2, 3)).tolist() == [3686] * 20
    assert torch.equal(seen.shown != 0, visible.view(2, 10, 1, 64, 64) & (seen.target != 0))
    torch.testing.assert_close(losses["mse"], (seen.prediction - seen.target).square().mean())
    task(clips[1:], index[1:], 3, 0)
    assert torch.equal(masks[1], visible[10:])
    # Masks of validation are of no seed and no epoch.
    other = create_pretraining(
        timm.create_model("plasm_mmnist_tiny", **MODEL), PretrainConfig(**GIVEN, mask_ratio=0.9, seed=9)
    )
    assert torch.equal(other.draw_mask(clips[:, :10], index, None), task.draw_mask(clips[:, :10], index, None))
    assert not torch.equal(other.draw_mask(clips[:, :10], index, 3), visible)


def test_a_mask_ratio_that_ends_elsewhere() -> None:
    """In equal steps of epochs, to all pixels seen; validation stays as it is."""
    config = PretrainConfig(**GIVEN, mask_ratio=0.9, mask_ratio_end=0.0, epochs=4)
    task = create_pretraining(timm.create_model("plasm_mmnist_tiny", **MODEL), config)
    clip, index = torch.zeros(1, 10, 1, 10, 10), torch.tensor([0])
    masks = [task.draw_mask(clip, index, epoch) for epoch in (0, 1, 2, 3, None)]
    assert [(~mask).sum().item() / 10 for mask in masks if mask is not None] == [90, 60, 30, 0, 90]
    for first, last, epochs in ((0.06, 0.0, 10), (0.08, 1.0, 50), (0.9, 0.3, 10)):
        task.first_ratio, task.last_ratio, task.epochs = first, last, epochs
        ratios = [task.mask_ratio(epoch) for epoch in range(epochs)]
        assert (ratios[0], ratios[-1]) == (first, last)
    assert ratios == pytest.approx(torch.linspace(0.9, 0.3, 10).tolist())
    with pytest.raises(ValueError, match=r"mask_ratio_end lies in \[0, 1\], got 2.0"):
        create_pretraining(timm.create_model("plasm_mmnist_tiny", **MODEL), PretrainConfig(**GIVEN, mask_ratio_end=2.0))


def test_ablations_of_the_first_phase() -> None:
    plain = PretrainConfig(**GIVEN, mask_ratio=0.0, spatial_masking=False)
    task = create_pretraining(timm.create_model("plasm_mmnist_tiny", **MODEL), plain)
    clips = torch.rand(1, 20, 1, 64, 64)
    _, seen = task(clips, torch.tensor([0]), 0, 0)
    assert torch.equal(seen.shown, clips[:, :10])
    assert {name.split(".")[0] for name, _ in task.model.named_parameters()} == {"encoder", "decoder"}
    assert seen.prediction.shape == seen.target.shape


class Noted(nn.Module):
    """A three-dimensional convolution is no trouble."""

    in_frames, out_frames = 10, 10

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv3d(10, 10, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, clip: Tensor) -> Tensor:
        frames: Tensor = self.body(clip)
        return frames


class NotingTask(Task):
    """Notes the step that its losses are of, and what it draws there."""

    def __init__(self, model: nn.Module, weight: float = 1.0) -> None:
        super().__init__(model)
        self.weight, self.seen = weight, list[tuple[int, float]]()

    def forward(self, clips: Tensor, index: Tensor, epoch: int | None, step: int) -> tuple[Losses, Outputs]:
        clip, target = clips.split(10, 1)
        if self.training:
            self.seen.append((step, torch.rand(()).item()))
        prediction = self.model(clip).float()
        error = self.weight * (prediction - target).abs().mean()
        return {"error": error, "twice": 2 * error}, Outputs(clip, target, prediction)


class ChangingTask(NotingTask):
    """Has a second loss from the second step on."""

    def forward(self, clips: Tensor, index: Tensor, epoch: int | None, step: int) -> tuple[Losses, Outputs]:
        losses, seen = super().forward(clips, index, epoch, step)
        return (losses if step else {"error": losses["error"]}), seen


FAMILY = Family(title="Noted", url="", citation="", task=NotingTask, recipes={"noted": {"train": {"lr": 0.002}}})


@register_model
def noted(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return build_model_with_cfg(Noted, "noted", pretrained, kwargs_filter=("num_classes", "in_chans"), **kwargs)


def test_a_trainer_goes_on_only_from_its_own_checkpoint(tmp_path: Path) -> None:
    """Its lock is gone after ``fit``: who trained in the folder since then is not undone."""
    config = TrainConfig(
        model="noted", data="mmnist", data_dir=str(SAMPLES), out=str(tmp_path / "run"), epochs=3, clips_per_epoch=4,
        batch_size=2, val_clips=1, device="cpu",
    )  # fmt: skip
    first = prepare(config, SINGLE_PROCESS, resume=False)
    first.fit(epochs=1)
    first.fit(epochs=2)
    prepare(config, SINGLE_PROCESS, resume=True).fit()
    log = (tmp_path / "run" / "log.jsonl").read_bytes()
    with pytest.raises(ValueError, match="another newest checkpoint than this trainer"):
        first.fit()
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == log


def test_losses_that_come_and_go_are_an_error(tmp_path: Path) -> None:
    """Their means over an epoch would be of other steps than the sum's."""
    config = TrainConfig(
        model="noted", data="mmnist", data_dir=str(SAMPLES), out=str(tmp_path), epochs=1, clips_per_epoch=4,
        batch_size=2, val_clips=1, device="cpu",
    )  # fmt: skip
    sets = (create_dataset("mmnist", SAMPLES, "train", num_frames=20, num_clips=4) for _ in range(2))
    trainer = Trainer(ChangingTask(timm.create_model("noted")), *sets, config, group=SINGLE_PROCESS)
    with pytest.raises(ValueError, match="it gave error, now error, twice; give 0"):
        trainer.fit()


def test_the_task_of_a_family_knows_its_step_and_draws_by_it(tmp_path: Path) -> None:
    def config(name: str) -> TrainConfig:
        return TrainConfig(
            model="noted", data="mmnist", data_dir=str(SAMPLES), out=str(tmp_path / name), epochs=2, clips_per_epoch=4,
            batch_size=2, val_clips=1, device="cpu", task_args={"weight": 0.5},
        )  # fmt: skip

    whole: Any = prepare(config("whole"), SINGLE_PROCESS, resume=False)
    whole.fit()
    parts: Any = prepare(config("parts"), SINGLE_PROCESS, resume=False)
    parts.fit(epochs=1)
    resumed: Any = prepare(config("parts"), SINGLE_PROCESS, resume=True)
    resumed.fit()
    steps = whole.task.seen
    assert [step for step, _ in steps] == [0, 1, 2, 3]
    assert len({drawn for _, drawn in steps}) == 4
    assert parts.task.seen + resumed.task.seen == steps
    one, two = (load_model("noted", str(tmp_path / name)) for name in ("whole", "parts"))
    assert torch.equal(one.state_dict()["body.weight"], two.state_dict()["body.weight"])
    for run in ("whole", "parts"):
        for line in (tmp_path / run / "log.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            # The loss is their sum, each with its weight.
            assert row["loss_twice"] == pytest.approx(2 * row["loss_error"])
            assert row["loss"] == pytest.approx(3 * row["loss_error"])
            assert list(row)[2:5] == ["loss", "loss_error", "loss_twice"]
    with pytest.raises(ValueError, match="the task of noted has no option width; it has: weight"):
        prepare(replace(config("more"), task_args={"width": 1}), SINGLE_PROCESS, resume=False)
    with pytest.raises(ValueError, match=r"rollout is an option of its own \(--rollout\)"):
        prepare(replace(config("more"), task_args={"rollout": 2}), SINGLE_PROCESS, resume=False)
    assert not (tmp_path / "more").exists()


def test_log_progress_and_tensorboard_show_each_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = TrainConfig(
        model="tau_mmnist", data="mmnist", data_dir=str(SAMPLES), out=str(tmp_path), epochs=2, clips_per_epoch=4,
        batch_size=2, val_clips=1, device="cpu", accumulate=2,
        model_args={"encoder_dim": 4, "translator_dim": 8, "translator_depth": 2, "in_frames": 3, "out_frames": 3},
    )  # fmt: skip
    shown: list[dict[str, str]] = []
    monkeypatch.setattr(tqdm, "set_postfix", lambda bar, values: shown.append(values))
    threads = {*threading.enumerate()}
    prepare(config, SINGLE_PROCESS, resume=False).fit()
    # Of runs that one process trains in turn, none leaves a thread of TensorBoard's behind.
    left = {*threading.enumerate()} - threads
    assert [thread for thread in left if "tensorboard" in type(thread).__module__] == []
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for name in ("loss", "loss_mse", "loss_divergence"):
        values = [row[name] for row in log]
        assert all(value > 0 for value in values)
        assert [event.value for event in events.Scalars(name)] == pytest.approx(values)
    for row in log:
        assert row["loss"] == pytest.approx(row["loss_mse"] + row["loss_divergence"])
    assert [list(values) for values in shown] == [["loss", "mse", "divergence", "lr"]] * 4
    for values in shown:
        assert float(values["loss"]) == pytest.approx(float(values["mse"]) + float(values["divergence"]), abs=2e-4)


class Half(nn.Module):
    """Nothing that timm made."""

    in_frames = out_frames = 2

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.1))

    def forward(self, clip: Tensor) -> Tensor:
        return self.weight * clip


def test_a_notebook_trains_the_module_that_it_holds(tmp_path: Path) -> None:
    net, rows = Half(), list[dict[str, Any]]()
    clips: Any = [torch.full((4, 1, 8, 8), 0.5) for _ in range(8)]
    config = TrainConfig(
        model="half", data="gray", data_dir=".", out=str(tmp_path / "run"), epochs=20, clips_per_epoch=8, batch_size=4,
        val_clips=2, device="cpu", lr=0.1,
    )  # fmt: skip
    Trainer(Prediction(net), clips, clips[:2], config, on_epoch=rows.append).fit()
    assert net.weight.item() == pytest.approx(1, abs=0.4)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows == log
    assert len(rows) == 20
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert saved["weight"] == net.weight
    assert not (tmp_path / "run" / "config.json").exists()
    with pytest.raises(FileExistsError, match="holds a run already"):
        Trainer(Prediction(Half()), clips, clips[:2], config).fit()
    # What the hook raises ends the run, which can go on.

    def stop(row: dict[str, Any]) -> None:
        raise StopIteration

    config = replace(config, out=str(tmp_path / "stopped"), schedule="constant")
    with pytest.raises(StopIteration):
        Trainer(Prediction(Half()), clips, clips[:2], config, on_epoch=stop).fit()
    again = Trainer(Prediction(Half()), clips, clips[:2], config)
    again.start(resume=True)
    assert again.state.epoch == 1


class Joined(Prediction):
    """Takes two channels for one, which torch would compare with each of them."""

    def forward(self, *args: Any) -> tuple[Losses, Outputs]:
        losses, outputs = super().forward(*args)
        return losses, outputs._replace(prediction=outputs.prediction.mean(2, keepdim=True))


def test_what_a_task_gives_to_be_measured_is_of_one_shape(tmp_path: Path) -> None:
    clips: Any = [torch.rand(4, 2, 8, 8) for _ in range(4)]
    config = TrainConfig(
        model="half", data="gray", data_dir=".", out=str(tmp_path / "run"), epochs=1, clips_per_epoch=4, batch_size=4,
        val_clips=2, device="cpu",
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"gives \(1, 2, 1, 8, 8\) where the clips need \(1, 2, 2, 8, 8\)"):
        Trainer(Joined(Half()), clips, clips, config).fit()
    assert not (tmp_path / "run" / "config.toml").exists()


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_a_module_that_is_compiled_already_is_saved_under_its_own_names(tmp_path: Path, ema: float) -> None:
    clips: Any = [torch.rand(4, 1, 8, 8) for _ in range(4)]
    config = TrainConfig(
        model="half", data="gray", data_dir=".", out=str(tmp_path / "run"), epochs=2, clips_per_epoch=4, batch_size=4,
        val_clips=2, device="cpu", ema=ema, schedule="constant",
    )  # fmt: skip
    compiled: Any = torch.compile(Half(), backend="eager")
    Trainer(Prediction(compiled), clips, clips, config).fit(epochs=1)
    assert load_file(tmp_path / "run" / "model.safetensors").keys() == {"weight"}
    again = Trainer(Prediction(Half()), clips, clips, config)
    again.start(resume=True)
    assert again.state.epoch == 1


def test_a_trainer_needs_a_batch_and_a_clip_to_measure_on(tmp_path: Path) -> None:
    clips = [torch.zeros(4, 1, 8, 8)] * 4
    config = TrainConfig(model="half", data="gray", data_dir=".", out=str(tmp_path), batch_size=4, device="cpu")
    for train_set, val_set, counts in ((clips[:3], clips, "3 and 4"), (clips, [], "4 and 0")):
        with pytest.raises(ValueError, match=f"a batch of 4 clips and one for validation, got {counts}"):
            Trainer(Prediction(Half()), train_set, val_set, config)


def test_a_trainer_locks_its_folder_until_it_has_trained(tmp_path: Path) -> None:
    """As `plasm train` does: another one, of whatever process, would delete its checkpoints."""
    clips = [torch.full((4, 1, 8, 8), number / 8) for number in range(8)]
    config = TrainConfig(
        model="half", data="gray", data_dir=".", out=str(tmp_path / "run"), epochs=2, clips_per_epoch=8, batch_size=4,
        device="cpu",
    )  # fmt: skip

    def trainer(**hooks: Any) -> Trainer:
        return Trainer(Prediction(Half()), clips, clips[:2], config, **hooks)

    def stop(row: dict[str, Any]) -> None:
        with pytest.raises(FileExistsError, match="is in use: process"):
            trainer().start(resume=True)
        raise StopIteration

    started = trainer(on_epoch=stop)
    started.start()
    with pytest.raises(FileExistsError, match="is in use: process"):
        training.run(config, resume=True)
    with pytest.raises(StopIteration):
        started.fit()
    # What is refused does not keep the folder, either.
    with pytest.raises(FileExistsError, match="holds a run already"):
        trainer().start()
    resumed = trainer()
    resumed.start(resume=True)
    resumed.fit(epochs=1)
    with lock_folder(tmp_path / "run"), pytest.raises(FileExistsError, match="is in use: process"):
        resumed.fit()
    resumed.fit()
    assert resumed.state.epoch == 2
    with lock_folder(tmp_path / "run"):
        pass


def test_a_constructor_is_no_name_of_weights(tmp_path: Path) -> None:
    """What trained from random weights would be saved under the name of others."""
    given = {**GIVEN, "model": "plasm_mmnist_tiny.mmnist_v7", "out": str(tmp_path / "run"), "device": "cpu"}
    with pytest.raises(ValueError, match=r"give --model plasm_mmnist_tiny --init plasm_mmnist_tiny\.mmnist_v7$"):
        training.run(TrainConfig(**given))
    with pytest.raises(ValueError, match=r"phase 1 begins without weights.*: --model plasm_mmnist_tiny$"):
        training.run(PretrainConfig(**given))
    with pytest.raises(ValueError, match=r"give --model plasm\.models:tau_mmnist_tiny --init tau_mmnist_tiny\.league$"):
        training.run(TrainConfig(**{**given, "model": "plasm.models:tau_mmnist_tiny.league"}))
    with pytest.raises(ValueError, match=r"a1_in1k a tag of weights: give --model timm:resnet18;"):
        training.run(TrainConfig(**{**given, "model": "timm:resnet18.a1_in1k"}))
    assert list(tmp_path.iterdir()) == []
    for name in ("plasm_mmnist_tiny", "plasm.models.plasm:plasm_mmnist_tiny", "no_such.tag"):
        _check_constructor(TrainConfig(**{**GIVEN, "model": name}))


def test_what_does_not_fit_a_phase_is_said() -> None:
    with pytest.raises(ValueError, match="Noted has not all of these"):
        create_pretraining(Noted(), PretrainConfig(**GIVEN))
    freeze_encoder(Noted(), False)
    with pytest.raises(ValueError, match="Noted has no freeze_encoder"):
        freeze_encoder(Noted(), True)


@pytest.mark.parametrize("name", ["tau", "convlstm", "phydnet", "e3dlstm"])
def test_losses_of_systems_take_weights(name: str) -> None:
    model: Any = timm.create_model(f"{name}_mmnist_tiny", in_frames=3, out_frames=3)
    task, clips = create_task(f"{name}_mmnist_tiny", model), torch.rand(1, 6, 1, 64, 64)
    model.eval()

    @torch.no_grad()
    def loss(weight: Tensor | None) -> float:
        torch.manual_seed(0)
        return float(total_loss(task(clips, torch.tensor([0]), 0, 0, weight)[0]))

    whole = loss(None)
    assert loss(torch.ones(1, 6, 1, 64, 64)) == pytest.approx(whole, rel=1e-5)
    half = torch.ones(1, 6, 1, 64, 64)
    half[..., 32:] = 0
    none = loss(torch.zeros(1, 6, 1, 64, 64))
    assert none <= loss(half) < whole
    # All that is left is what does not compare frames.
    assert none < 0.05 * whole or name == "phydnet"


def test_data_with_weights_needs_a_task_that_takes_them() -> None:
    class Weighed:
        def get_weighed_batch(self, indices: list[int]) -> None: ...

    _check_weights(Prediction(Noted()), Weighed())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="forward of NotingTask takes no argument `weight`"):
        _check_weights(NotingTask(Noted()), Weighed())  # type: ignore[arg-type]
