"""The training loop. It knows models that map tensors to tensors, and nothing of what they are."""

import math
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2, list_optimizers, param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR
from torch.utils.data import Dataset
from tqdm import tqdm

from plasm.data import create_dataset
from plasm.data.counter_hash import counter_hash
from plasm.metrics import frame_mse

from . import checkpoints
from .config import PretrainConfig, RunConfig, TrainConfig
from .devices import choose_device, has_bf16, keep_freed_memory, move
from .distributed import World, join_world
from .evaluation import clip_batches
from .folder import RunFolder
from .phases import Phase, prediction_phase, pretraining_phase
from .report import write_report
from .runs import (
    frame_counts,
    freezes_encoder,
    history_of,
    load_initial_weights,
    load_model,
    make_model,
    read_earlier,
)

__all__ = ["RunInterruptedError", "Trainer", "make_scheduler", "run"]

_VALIDATION_BATCH = 10
_STEPS_BETWEEN_LOOKS = 10
"""On a device that runs ahead of Python, how many steps it may be ahead: a look at the loss waits for it."""


class RunInterruptedError(RuntimeError):
    """A signal stopped the run, after its state was saved.

    Attributes:
        signal: Number of the signal.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def make_optimizer(model: nn.Module, config: RunConfig) -> torch.optim.Optimizer:
    """The optimizer of a name of timm's, over the parameters that require a gradient.

    Raises:
        ValueError: If timm has none of that name.
    """
    name = config.optimizer
    if name not in list_optimizers():
        raise ValueError(f"no optimizer is called {name!r}; timm.optim has: {', '.join(list_optimizers())}")
    # The paper's betas (timm would take them for Adam, too, but lets each optimizer have its own) and torch's one-pass
    # step, where it has one.
    fused = {"fused": True} if name in ("adam", "adamw") else {}
    groups = param_groups_weight_decay(model, config.weight_decay)
    return create_optimizer_v2([group for group in groups if group["params"]], name, lr=config.lr, **fused)


def make_scheduler(optimizer: torch.optim.Optimizer, config: RunConfig, num_steps: int) -> LRScheduler:
    """Learning rate of each step: torch's one-cycle (Smith and Topin), half a cosine down to 0, constant, or wsd.

    Warm-up, stable, decay (Hu et al., arXiv 2404.06395): until it decays, a step's rate does not depend on how long the
    run is to be.
    """
    if config.schedule == "onecycle":
        # torch would cycle Adam's beta1, too, by default; the paper keeps .9.
        return OneCycleLR(optimizer, max_lr=config.lr, total_steps=num_steps, cycle_momentum=False)
    if config.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=num_steps)
    if config.schedule == "wsd":
        warmup, decay = config.warmup_steps, num_steps // config.epochs * config.decay_epochs
        # The decay's first step is the last at the peak, so that a run that gets one joins on.
        return LambdaLR(
            optimizer,
            lambda step: min(1.0, (step + 1) / (warmup + 1), (num_steps - step) / decay if decay else 1.0),
        )
    return LambdaLR(optimizer, lambda step: 1.0)


def run(config: PretrainConfig | TrainConfig, *, resume: bool = False, fast_dev_run: bool = False) -> None:
    """Train a model from scratch or from weights, and leave weights, log and pictures in ``config.out``.

    Under torchrun every process calls it, with the same arguments.

    Args:
        config: Of the run.
        resume: Go on from the last checkpoint in ``config.out``, if there is one.
        fast_dev_run: Go through every stage with a few clips, in a folder beside ``config.out`` that is deleted.

    Raises:
        ValueError: If the configuration does not fit the model, the data, or the run that is to be resumed.
        FileExistsError: If ``config.out`` holds a run already.
        OSError: If ``config.out`` cannot be written.
        FloatingPointError: If the loss is not finite any more.
        RunInterruptedError: If SIGTERM or SIGINT came; the state was saved.
        LostProcessError: If another process of the run has gone.
    """
    if fast_dev_run:
        _try_every_stage(config, resume)
        return
    with join_world(choose_device(config.device)) as world:
        _prepare(config, world, resume).fit()


def _try_every_stage(config: PretrainConfig | TrainConfig, resume: bool) -> None:
    """One step an epoch, two epochs, the second after a stop; then the weights are loaded again."""
    out = Path(config.out)
    folder = out.with_name(f".{out.name}.fast_dev_run")
    with join_world(choose_device(config.device)) as world:
        # A few clips, but enough for each process and part.
        whole = world.size * config.accumulate
        clips = min(config.batch_size, whole * max(1, 4 // whole))
        small = replace(
            config, out=str(folder), epochs=2, clips_per_epoch=clips, batch_size=clips, val_clips=2, eval_every=1
        )
        try:
            if world.is_first:
                RunFolder(out).check(config, resume)
                shutil.rmtree(folder, ignore_errors=True)
            _prepare(small, world, resume=False).fit(epochs=1)
            world.wait()
            _prepare(small, world, resume=True).fit()
            if isinstance(config, TrainConfig) and world.is_first:
                load_model(config.model, str(folder))
        finally:
            if world.is_first:
                shutil.rmtree(folder, ignore_errors=True)
    if world.is_first:
        print("every stage works: steps, validation, checkpoint, resuming, weights, report")


def _prepare(config: PretrainConfig | TrainConfig, world: World, resume: bool) -> "Trainer":
    """Make model and data sets, and check all that can be checked before anything is written."""
    folder = RunFolder(Path(config.out))
    if config.bf16 is None:
        config = replace(config, bf16=has_bf16(world.device))
    if world.is_first:
        folder.check(config, resume)
    if config.batch_size % (world.size * config.accumulate):
        raise ValueError(
            f"batch_size {config.batch_size} is not a multiple of {world.size} processes x {config.accumulate} parts"
        )
    torch.manual_seed(config.seed)
    model = make_model(config.model, **config.model_args)
    history: list[dict[str, Any]] = []
    if isinstance(config, PretrainConfig):
        phase = pretraining_phase(model, config)
    else:
        history = _begin(model, config, folder, resume)
        phase = prediction_phase(model, freezes_encoder(config.freeze_encoder, history))
    train_set, val_set = _make_datasets(config, model, sum(frame_counts(model)))
    trainer = Trainer(phase, model, train_set, val_set, config, folder, world)
    trainer.check()
    if world.is_first:
        folder.create(config, history, needed_bytes=trainer.checkpoint_bytes() * 4)
    if resume:
        trainer.restore()
    return trainer


def _begin(model: nn.Module, config: TrainConfig, folder: RunFolder, resume: bool) -> list[dict[str, Any]]:
    """Load the weights that a run begins with, unless its checkpoint has later ones; their history."""
    if resume and any(folder.checkpoints.glob("step_*")) and (earlier := read_earlier(folder.path)):
        return earlier
    if config.init is None:
        return []
    load_initial_weights(model, config.model, config.init, **config.model_args)
    return history_of(config.init)


def _make_datasets(config: RunConfig, model: nn.Module, num_frames: int) -> tuple[Dataset[Tensor], Dataset[Tensor]]:
    root = Path(config.data_dir)
    train_set = create_dataset(
        config.data, root, "train", num_clips=config.clips_per_epoch, num_frames=num_frames, seed=config.seed,
        **config.data_args,
    )  # fmt: skip
    val_set = create_dataset(
        config.data, root, "val", num_clips=config.val_clips, num_frames=num_frames, **config.data_args
    )
    if len(train_set) < config.batch_size:  # type: ignore[arg-type]
        raise ValueError(
            f"{config.data} has {len(train_set)} training clips, fewer than a batch of {config.batch_size}"  # type: ignore[arg-type]
        )
    channels, wanted = train_set[0].shape[1], getattr(model, "in_chans", None)
    if wanted not in (None, channels):
        raise ValueError(
            f"{config.data} has clips of {channels} channel(s), {config.model} takes {wanted}: "
            f"--model-arg in_chans={channels}, or an option of the data set"
        )
    return train_set, val_set


@dataclass
class _Step:
    """A step whose loss nobody has looked at yet."""

    number: int
    lr: float
    loss: Tensor


class Trainer:
    """One run in progress: the loop of both phases.

    Args:
        phase: What goes into the model and what should come out.
        model: The model whose weights are saved; ``phase.model`` or the one it was made from.
        train_set: Clips of (T + T', C, H, W), a function of epoch and index.
        val_set: Clips to measure on.
        config: Of the run, with ``bf16`` decided.
        folder: Where the run's files go.
        world: The processes that train together.
    """

    def __init__(
        self,
        phase: Phase,
        model: nn.Module,
        train_set: Dataset[Tensor],
        val_set: Dataset[Tensor],
        config: RunConfig,
        folder: RunFolder,
        world: World,
    ) -> None:
        self.phase, self.exported, self.train_set, self.val_set = phase, model, train_set, val_set
        self.config, self.folder, self.world, self.device = config, folder, world, world.device
        keep_freed_memory(self.device)
        if config.workers == 0:
            for dataset in (train_set, val_set):
                # Clips that are made rather than read are made where they are used.
                if hasattr(dataset, "to"):
                    dataset.to(self.device)
        # Convolutions are faster in this format, on a CPU most of all.
        self.model = move(phase.model, self.device)
        self.replica = DistributedDataParallel(self.model) if world.size > 1 else self.model
        self.module: nn.Module = torch.compile(self.replica) if config.compile else self.replica  # type: ignore[assignment]
        self.ema = ModelEmaV3(self.model, decay=config.ema) if config.ema else None
        self.optimizer = make_optimizer(self.model, config)
        # In the optimizer's order, by which checkpoints number them.
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.steps_per_epoch = min(config.clips_per_epoch, len(train_set)) // config.batch_size  # type: ignore[arg-type]
        self.scheduler = make_scheduler(self.optimizer, config, config.epochs * self.steps_per_epoch)
        # Where the run is: epochs done, steps of the next one done, and the sum of their losses.
        self.epoch, self.step, self.loss_sum = 0, 0, 0.0
        self.unseen: list[_Step] = []
        self.stop = False
        self.steps_between_looks = 1 if self.device.type == "cpu" else _STEPS_BETWEEN_LOOKS
        self.saved_at = time.monotonic()

    # --- before the first step ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def check(self) -> None:
        """Send one validation clip through the model, so that what does not fit is known before anything is written.

        Raises:
            ValueError: If the clips do not fit the model.
        """
        self.model.eval()
        index = torch.zeros(1, dtype=torch.int64, device=self.device)
        inputs, target = self.phase.inputs(self.val_set[0][None].to(self.device), index, None)
        shape = self.model(*inputs).shape
        if shape != target.shape:
            raise ValueError(f"the model gives {tuple(shape)} where the clips need {tuple(target.shape)}")

    def checkpoint_bytes(self) -> int:
        """Size of a checkpoint, about: the weights, two moments of each that is trained, and the average."""
        weights = sum(p.numel() * p.element_size() for p in self.model.parameters())
        return weights * (2 if self.ema else 1) + 2 * sum(p.numel() * p.element_size() for p in self.parameters)

    # --- state --------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint. Every process has the same state; the first one writes it."""
        self.saved_at = time.monotonic()
        self._check_weights()
        if not self.world.is_first:
            return
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.ema:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.module.state_dict().items()}
        optimizer = self.optimizer.state_dict()
        plain: dict[str, dict[str, Any]] = {}
        for number, state in optimizer["state"].items():
            tensors |= {f"optimizer.{number}.{key}": value for key, value in state.items() if torch.is_tensor(value)}
            # Muon notes which of its two methods a parameter is for.
            plain[str(number)] = {key: value for key, value in state.items() if not torch.is_tensor(value)}
        values = {
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "param_groups": optimizer["param_groups"],
            "optimizer_values": plain,
            "scheduler": self.scheduler.state_dict(),
        }
        checkpoints.save(tensors, values, self.folder.checkpoints, self._steps_done)

    @property
    def _steps_done(self) -> int:
        return self._steps_in({"epoch": self.epoch, "step": self.step})

    def _steps_in(self, values: Mapping[str, Any]) -> int:
        return values["epoch"] * self.steps_per_epoch + values["step"]

    def _check_weights(self) -> None:
        """Raise FloatingPointError before weights that are not finite are saved: the loss is that of a step before."""
        if not all(torch.stack([p.detach().isfinite().all() for p in self.parameters]).tolist()):
            raise FloatingPointError(
                f"weights are not finite after step {self.step} of epoch {self.epoch + 1}; a smaller --lr or "
                f"--clip-grad may help. Those in {self.folder.path}, if any, are from before"
            )

    @torch.no_grad()
    def restore(self) -> None:
        """Take up the newest checkpoint, if there is one.

        Raises:
            OSError: If every checkpoint is damaged.
            ValueError: If the processes do not see the same one.
        """
        found = checkpoints.load_newest(self.folder.checkpoints)
        if found is not None:
            self._take_up(found)
        taken = torch.tensor(float(self._steps_done))
        if self.world.sum(taken) != taken * self.world.size:
            raise ValueError(
                f"process {self.world.rank} of {self.world.size} found another checkpoint in {self.folder.path} than "
                "the others: all of them must see the same --out"
            )
        if self.world.is_first:
            checkpoints.discard_after(self.folder.checkpoints, self._steps_done)
            self.folder.read_log(self.epoch * self._clips_per_epoch)

    def _take_up(self, found: checkpoints.Checkpoint) -> None:
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimizer": {}}
        for name, tensor in found.tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.model.load_state_dict(parts["model"])
        if self.ema:
            self.ema.module.load_state_dict(parts["ema"])
        state: dict[int, dict[str, Any]] = {}
        for name, tensor in parts["optimizer"].items():
            number, _, key = name.partition(".")
            parameter = self.parameters[int(number)]
            if tensor.shape == parameter.shape:
                # Files know no memory format, and the fused step pairs elements by their place in memory.
                tensor = torch.empty_like(parameter).copy_(tensor)
            state.setdefault(int(number), {})[key] = tensor
        values = found.values
        for key, plain in values.get("optimizer_values", {}).items():
            state.setdefault(int(key), {}).update(plain)
        self.optimizer.load_state_dict({"state": state, "param_groups": values["param_groups"]})
        planned = [rate(self._steps_in(values)) * self.config.lr for rate in getattr(self.scheduler, "lr_lambdas", ())]
        self.scheduler.load_state_dict(values["scheduler"])
        if planned and not math.isclose(planned[0], self.scheduler.get_last_lr()[0], rel_tol=1e-9):
            raise ValueError(
                f"{self.folder.path} has a learning rate of {self.scheduler.get_last_lr()[0]:.3g} after step "
                f"{self._steps_in(values)}, where this configuration has {planned[0]:.3g}: a run that decays already "
                "cannot be made longer; start another with --init"
            )
        self.epoch, self.step, self.loss_sum = values["epoch"], values["step"], values["loss_sum"]

    # --- the loop -----------------------------------------------------------------------------------------------------

    @property
    def _clips_per_epoch(self) -> int:
        return self.steps_per_epoch * self.config.batch_size

    def fit(self, epochs: int | None = None) -> None:
        """Train, and evaluate, save and draw every ``eval_every`` epochs and at the end.

        Args:
            epochs: Stop after so many, as if the run had been interrupted there.
        """
        config, last = self.config, self.config.epochs
        with (
            _catch_signals() as self.signals,
            tqdm(
                total=last * self._clips_per_epoch, initial=self._steps_done * config.batch_size, desc=self.phase.name,
                unit="clip", disable=None if self.world.is_first else True,
            ) as progress,
        ):  # fmt: skip
            while self.epoch < min(last, epochs or last):
                row = {"epoch": self.epoch + 1, **self._train_epoch(progress)}
                if row["epoch"] % config.eval_every == 0 or row["epoch"] == last:
                    self._save_weights()
                    row["val_mse"] = self._evaluate()
                self.epoch, self.step, self.loss_sum = self.epoch + 1, 0, 0.0
                if self.world.is_first:
                    self.folder.add_to_log(row)
                    tqdm.write(
                        "  ".join(f"{k} {v:.5g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
                    )
                self.save()
                if self.stop and self.epoch < last:
                    self._interrupt()
        if self.epoch == last and self.world.is_first:
            write_report(self.folder, config, self.phase, self.device, self.world.size)

    def _train_epoch(self, progress: "tqdm[Any]") -> dict[str, float]:
        self.model.train()
        started, first = time.perf_counter(), self.step
        loader = self._batches()
        for step in range(first, self.steps_per_epoch):
            lr = self.optimizer.param_groups[0]["lr"]
            batch = [next(loader) for _ in range(self.config.accumulate)]
            # Dropout and its like are a function of the step, so that a run that is resumed draws the same. A loader
            # draws, too, when it starts: before this.
            torch.manual_seed(int(counter_hash(self.config.seed, self.epoch, step, self.world.rank)))
            self.unseen.append(_Step(step, lr, self._train_step(batch)))
            self.step = step + 1
            progress.update(self.config.batch_size)
            if self.step % self.steps_between_looks == 0 or self.step == self.steps_per_epoch:
                self._look(progress)
        seconds = time.perf_counter() - started
        return {
            "clips": (self.epoch + 1) * self._clips_per_epoch,
            "loss": self.loss_sum / self.steps_per_epoch,
            "lr": lr,
            "clips_per_second": (self.steps_per_epoch - first) * self.config.batch_size / seconds,
        }

    def _train_step(self, batch: list[tuple[Tensor, Tensor]]) -> Tensor:
        """One step of the optimizer on (clips, index) parts of a batch; returns their mean loss on the device."""
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for number, (clips, index) in enumerate(batch, start=1):
            inputs, target = self.phase.inputs(clips, index.to(self.device, non_blocking=True), self.epoch)
            # Gradients travel between processes with the last part alone.
            alone = self.world.size > 1 and number < len(batch)
            with self.replica.no_sync() if alone else nullcontext():
                with torch.autocast(self.device.type, torch.bfloat16, enabled=bool(self.config.bf16)):
                    prediction = self.module(*inputs)
                loss = F.mse_loss(prediction.float(), target) / len(batch)
                loss.backward()
            total += loss.detach()
        if self.config.clip_grad > 0:
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_grad)
        self.optimizer.step()
        self.scheduler.step()
        if self.ema:
            self.ema.update(self.model)
        return total

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The rest of an epoch, in an order of its own: this process's parts of each batch, clips and index (B,)."""
        if hasattr(self.train_set, "set_epoch"):
            self.train_set.set_epoch(self.epoch)
        parts: list[list[int]] = []
        for batch in self._order()[self.step :].tolist():
            share = self.world.share(batch)
            size = len(share) // self.config.accumulate
            parts += [share[i : i + size] for i in range(0, len(share), size)]
        for index, clips in zip(parts, clip_batches(self.train_set, parts, self.config.workers), strict=True):
            yield clips.to(self.device, non_blocking=True), torch.tensor(index)

    def _order(self) -> Tensor:
        """Which clips the steps of this epoch see: int64, (steps, batch_size)."""
        generator = torch.Generator().manual_seed(int(counter_hash(self.config.seed, self.epoch)))
        order = torch.randperm(len(self.train_set), generator=generator)  # type: ignore[arg-type]
        return order[: self._clips_per_epoch].view(self.steps_per_epoch, -1)

    def _look(self, progress: "tqdm[Any]") -> None:
        """Wait for the device, see whether all is well, and save what is due."""
        losses = torch.stack([step.loss for step in self.unseen])
        stop = losses.new_tensor([float(self.signals.caught is not None)])
        *values, stopped = self.world.sum(torch.cat([losses, stop])).tolist()
        values = [value / self.world.size for value in values]
        for step, value in zip(self.unseen, values, strict=True):
            if not math.isfinite(value):
                self._stop_at(step, value)
        progress.set_postfix(loss=f"{values[-1]:.4f}", lr=f"{self.unseen[-1].lr:.2g}")
        self.loss_sum += sum(values)
        self.unseen.clear()
        self.stop = stopped > 0
        if self.step == self.steps_per_epoch:
            return  # the end of the epoch saves, and stops
        if self.stop:
            self.save()
            self._interrupt()
        if time.monotonic() - self.saved_at > 60 * self.config.checkpoint_minutes:
            self.save()

    def _interrupt(self) -> None:
        number = self.signals.caught or signal.SIGTERM
        raise RunInterruptedError(
            f"{signal.Signals(number).name}: stopped in epoch {self.epoch + 1} after step {self.step} of "
            f"{self.steps_per_epoch}; the same command with --resume goes on",
            number,
        )

    def _stop_at(self, step: _Step, loss: float) -> None:
        message = (
            f"the loss is {loss} at step {step.number + 1} of epoch {self.epoch + 1}, at a learning rate of "
            f"{step.lr:.2g}; a smaller --lr or --clip-grad may help."
        )
        if self.world.is_first:
            index = self._order()[step.number]
            (clips,) = clip_batches(self.train_set, [index.tolist()])
            file = self.folder.save_bad_batch(clips, index)
            message += (
                f" Its clips are in {file}; weights and checkpoints in {self.folder.path}, if any, are from before"
            )
        raise FloatingPointError(message)

    # --- between epochs -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _evaluate(self) -> float:
        """Frame MSE on the validation clips, each measured by one process; the first of them as a picture."""
        model = self.ema.module if self.ema else self.model
        model.eval()
        available = len(self.val_set)  # type: ignore[arg-type]
        count = min(self.config.val_clips, available)
        # Spread over all files, in which neighbours look alike.
        share = self.world.share([number * available // count for number in range(count)])
        batches = [share[i : i + _VALIDATION_BATCH] for i in range(0, len(share), _VALIDATION_BATCH)]
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        loaded = clip_batches(self.val_set, batches, self.config.workers)
        for number, (batch, clips) in enumerate(zip(batches, loaded, strict=True)):
            inputs, target = self.phase.inputs(clips.to(self.device), torch.tensor(batch, device=self.device), None)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bool(self.config.bf16)):
                prediction = model(*inputs).float()
            total += frame_mse(prediction, target).mean(1).sum()
            if number == 0 and self.world.is_first:
                shown, follows = self.phase.shown(*inputs)[:4], self.phase.name == "prediction"
                self.folder.draw(shown, target[:4], prediction[:4], self.epoch + 1, follows)
        return self.world.sum(total).item() / count

    def _save_weights(self) -> None:
        self._check_weights()
        if self.world.is_first:
            tensors = (self.ema.module if self.ema else self.model).state_dict()
            self.folder.save_weights(self.exported, tensors, self.phase.name)


@dataclass
class _Signals:
    """Which signal came, if one did."""

    caught: int | None = None


@contextmanager
def _catch_signals() -> Iterator[_Signals]:
    """Let SIGTERM and the first Ctrl-C be noticed between steps; a second Ctrl-C interrupts at once."""
    signals = _Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return

    def note(number: int, frame: FrameType | None) -> None:
        signals.caught = number
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
