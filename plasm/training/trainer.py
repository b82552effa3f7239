"""The training loop. It knows tasks, which map clips to a loss, and nothing of what their models are."""

import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset
from tqdm import tqdm

from plasm.data import clip_batches, weighed_batches
from plasm.data.counter_hash import counter_hash
from plasm.devices import keep_freed_memory, move
from plasm.distributed import World
from plasm.metrics import frame_mse
from plasm.runs import RunConfig, RunFolder, write_report

from . import checkpoints
from .signals import RunInterruptedError, catch_signals
from .state import TrainState
from .task import Task

__all__ = ["Trainer"]

_VALIDATION_BATCH = 10
_STEPS_BETWEEN_LOOKS = 10
"""On a device that runs ahead of Python, how many steps it may be ahead: a look at the loss waits for it."""


class Trainer:
    """One run in progress.

    Args:
        task: What a step is.
        model: The model that is described beside the weights; ``task.model`` or the one it was made from.
        train_set: Clips of (T + T', C, H, W), a function of epoch and index.
        val_set: Clips to measure on.
        config: Of the run, with ``bf16`` decided.
        folder: Where the run's files go.
        world: The processes that train together.
        data: Fingerprints of both sets of clips, which a run that is resumed compares.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        train_set: Dataset[Tensor],
        val_set: Dataset[Tensor],
        config: RunConfig,
        folder: RunFolder,
        world: World,
        data: Mapping[str, Any],
    ) -> None:
        self.exported, self.train_set, self.val_set = model, train_set, val_set
        self.config, self.folder, self.world, self.device = config, folder, world, world.device
        keep_freed_memory(self.device)
        if config.workers == 0:
            for dataset in (train_set, val_set):
                # Clips that are made rather than read are made where they are used.
                if hasattr(dataset, "to"):
                    dataset.to(self.device)
        self.task: Task = move(task, self.device)
        self.steps_per_epoch = min(config.clips_per_epoch, len(train_set)) // config.batch_size  # type: ignore[arg-type]
        self.clips_per_epoch = self.steps_per_epoch * config.batch_size
        self.state = TrainState(self.task, config, self.steps_per_epoch, data)
        if config.compile:
            self.task.model.compile()
        self.replica: Any = DistributedDataParallel(self.task) if world.size > 1 else self.task
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=bool(config.bf16))
        # Number, learning rate and loss of each step whose loss nobody has looked at yet.
        self.unseen: list[tuple[int, float, Tensor]] = []
        self.stop = False
        self.steps_between_looks = 1 if self.device.type == "cpu" else _STEPS_BETWEEN_LOOKS
        self.saved_at = time.monotonic()

    # Only steps are compiled: a look at clips is not worth another graph.
    @torch.compiler.set_stance("force_eager")
    @torch.no_grad()
    def check(self) -> None:
        """Send one validation clip through the task, so that what does not fit is known before anything is written.

        Raises:
            ValueError: If the clips do not fit the model.
        """
        index = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.task.eval()(self.val_set[0][None].to(self.device), index, None, 0)

    def save(self) -> None:
        """Write a checkpoint. Every process has the same state; the first one writes it."""
        self.saved_at = time.monotonic()
        self.state.check_finite()
        if self.world.is_first:
            self.state.save(self.folder.checkpoints)

    def restore(self, allow_changed_data: bool = False) -> None:
        """Take up the newest checkpoint, if there is one.

        Args:
            allow_changed_data: Warn where the data is not what the run has seen.

        Raises:
            OSError: If every checkpoint is damaged.
            ValueError: If it does not fit this run, or the processes do not see the same one.
        """
        self.state.restore(self.folder.checkpoints, allow_changed_data)
        taken = torch.tensor(float(self.state.steps_done))
        if self.world.sum(taken) != taken * self.world.size:
            raise ValueError(
                f"process {self.world.rank} of {self.world.size} found another checkpoint in {self.folder.path} than "
                "the others: all of them must see the same --out"
            )
        if self.world.is_first:
            self.folder.read_log(self.state.epoch, self.clips_per_epoch)
            checkpoints.discard_after(self.folder.checkpoints, self.state.steps_done)

    def fit(self, epochs: int | None = None) -> None:
        """Train, and evaluate, save and draw every ``eval_every`` epochs and at the end.

        Args:
            epochs: Stop after so many, as if the run had been interrupted there.
        """
        config, state, last = self.config, self.state, self.config.epochs
        with (
            catch_signals() as self.caught,
            tqdm(
                total=last * self.clips_per_epoch, initial=state.steps_done * config.batch_size, desc=self.task.name,
                unit="clip", disable=None if self.world.is_first else True,
            ) as progress,
        ):  # fmt: skip
            while state.epoch < min(last, epochs or last):
                row = {"epoch": state.epoch + 1, **self._train_epoch(progress)}
                if row["epoch"] % config.eval_every == 0 or row["epoch"] == last:
                    self._save_weights()
                    row["val_mse"] = self._evaluate()
                state.epoch, state.step, state.loss_sum = state.epoch + 1, 0, 0.0
                if self.world.is_first:
                    self.folder.add_to_log(row)
                    tqdm.write(
                        "  ".join(f"{k} {v:.5g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
                    )
                self.save()
                if self.stop and state.epoch < last:
                    self._interrupt()
        if state.epoch == last and self.world.is_first and self.folder.log:
            write_report(self.folder, config, self.task.model, self.device, self.world.size)

    def _train_epoch(self, progress: "tqdm[Any]") -> dict[str, float]:
        state = self.state
        self.task.train()
        started, first = time.perf_counter(), state.step
        loader = self._batches()
        for step in range(first, self.steps_per_epoch):
            lr = state.optimizer.param_groups[0]["lr"]
            batch = [next(loader) for _ in range(self.config.accumulate)]
            # Dropout and its like are a function of the step, so that a run that is resumed draws the same. A loader
            # draws, too, when it starts: before this.
            torch.manual_seed(int(counter_hash(self.config.seed, state.epoch, step, self.world.rank)))
            self.unseen.append((step, lr, self._train_step(batch)))
            state.step = step + 1
            progress.update(self.config.batch_size)
            if state.step % self.steps_between_looks == 0 or state.step == self.steps_per_epoch:
                self._look(progress)
        seconds = time.perf_counter() - started
        return {
            "clips": (state.epoch + 1) * self.clips_per_epoch,
            "loss": state.loss_sum / self.steps_per_epoch,
            "lr": lr,
            "clips_per_second": (self.steps_per_epoch - first) * self.config.batch_size / seconds,
        }

    def _train_step(self, batch: list[tuple[Tensor, ...]]) -> Tensor:
        """One step of the optimizer on (clips, index) or (clips, index, weight) parts of a batch.

        Returns:
            Their mean loss, on the device.
        """
        state = self.state
        state.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for number, (clips, index, *weight) in enumerate(batch, start=1):
            # Gradients travel between processes with the last part alone.
            alone = self.world.size > 1 and number < len(batch)
            with self.replica.no_sync() if alone else nullcontext():
                with self.autocast:
                    loss, _ = self.replica(clips, index.to(self.device), state.epoch, state.steps_done, *weight)
                loss = loss.float() / len(batch)
                loss.backward()
            total += loss.detach()
        if self.config.clip_grad > 0:
            nn.utils.clip_grad_norm_(state.parameters, self.config.clip_grad)
        state.take_step()
        return total

    def _batches(self) -> Iterator[tuple[Tensor, ...]]:
        """The rest of an epoch, in an order of its own: this process's parts of each batch.

        A part is clips, index (B,) and, of a data set that has them, weights.
        """
        if hasattr(self.train_set, "set_epoch"):
            self.train_set.set_epoch(self.state.epoch)
        parts: list[list[int]] = []
        for batch in self._order()[self.state.step :].tolist():
            share = self.world.share(batch)
            size = len(share) // self.config.accumulate
            parts += [share[i : i + size] for i in range(0, len(share), size)]
        loaded = weighed_batches(self.train_set, parts, self.config.workers)
        for index, (clips, weight) in zip(parts, loaded, strict=True):
            yield clips.to(self.device, non_blocking=True), torch.tensor(index), *self._weight(weight)

    def _weight(self, weight: Tensor | None) -> list[Tensor]:
        """The last argument of a task, where there is one."""
        return [] if weight is None else [weight.to(self.device, non_blocking=True)]

    def _order(self) -> Tensor:
        """Which clips the steps of this epoch see: int64, (steps, batch_size)."""
        generator = torch.Generator().manual_seed(int(counter_hash(self.config.seed, self.state.epoch)))
        order = torch.randperm(len(self.train_set), generator=generator)  # type: ignore[arg-type]
        return order[: self.clips_per_epoch].view(self.steps_per_epoch, -1)

    def _look(self, progress: "tqdm[Any]") -> None:
        """Wait for the device, see whether all is well, and save what is due."""
        losses = torch.stack([loss for _, _, loss in self.unseen])
        stop = losses.new_tensor([float(bool(self.caught))])
        *values, stopped = self.world.sum(torch.cat([losses, stop])).tolist()
        values = [value / self.world.size for value in values]
        for (step, lr, _), value in zip(self.unseen, values, strict=True):
            if not math.isfinite(value):
                self._stop_at(step, lr, value)
        progress.set_postfix(loss=f"{values[-1]:.4f}", lr=f"{lr:.2g}")
        self.state.loss_sum += sum(values)
        self.unseen.clear()
        self.stop = stopped > 0
        if self.state.step == self.steps_per_epoch:
            return  # the end of the epoch saves, and stops
        if self.stop:
            self.save()
            self._interrupt()
        if time.monotonic() - self.saved_at > 60 * self.config.checkpoint_minutes:
            self.save()

    def _interrupt(self) -> None:
        number = self.caught[-1] if self.caught else signal.SIGTERM
        raise RunInterruptedError(
            f"{signal.Signals(number).name}: stopped in epoch {self.state.epoch + 1} after step {self.state.step} of "
            f"{self.steps_per_epoch}; the same command with --resume goes on",
            number,
        )

    def _stop_at(self, step: int, lr: float, loss: float) -> None:
        message = (
            f"the loss is {loss} at step {step + 1} of epoch {self.state.epoch + 1}, at a learning rate of "
            f"{lr:.2g}; a smaller --lr or --clip-grad may help."
        )
        if self.world.is_first:
            index = self._order()[step]
            (clips,) = clip_batches(self.train_set, [index.tolist()])
            file = self.folder.save_bad_batch(clips, index)
            message += (
                f" Its clips are in {file}; weights and checkpoints in {self.folder.path}, if any, are from before"
            )
        raise FloatingPointError(message)

    @torch.compiler.set_stance("force_eager")
    @torch.no_grad()
    def _evaluate(self) -> float:
        """Frame MSE on the validation clips, each measured by one process; the first of them as a picture."""
        task = self.state.measured.eval()
        # Of BatchNorm, each process has seen its own clips; what is saved is the first one's.
        self.world.take_from_first(task.buffers())
        available = len(self.val_set)  # type: ignore[arg-type]
        count = min(self.config.val_clips, available)
        # Spread over all files, in which neighbours look alike.
        share = self.world.share([number * available // count for number in range(count)])
        batches = [share[i : i + _VALIDATION_BATCH] for i in range(0, len(share), _VALIDATION_BATCH)]
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        loaded = weighed_batches(self.val_set, batches, self.config.workers)
        for number, (batch, (clips, weight)) in enumerate(zip(batches, loaded, strict=True)):
            index = torch.tensor(batch, device=self.device)
            with self.autocast:
                _, seen = task(clips.to(self.device), index, None, self.state.steps_done, *self._weight(weight))
            total += frame_mse(seen.prediction, seen.target).mean(1).sum()
            if number == 0 and self.world.is_first:
                shown, truth, drawn = (frames[:4] for frames in seen)
                self.folder.draw(shown, truth, drawn, self.state.epoch + 1, task.follows)
        return self.world.sum(total).item() / count

    def _save_weights(self) -> None:
        self.state.check_finite()
        if self.world.is_first:
            self.folder.save_weights(self.exported, self.state.measured.model.state_dict(), self.task.name)
