"""The training loop. It depends on tasks, which map clips to losses, and not on what their models are."""

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset
from tqdm import tqdm

from plasm.data import clip_batches, fingerprint, weighed_batches
from plasm.data.counter_hash import counter_hash
from plasm.devices import choose_device, has_bf16, keep_freed_memory, move
from plasm.distributed import ProcessGroup
from plasm.evaluation import frame_mse
from plasm.runs import RunConfig, RunFolder, lock_folder, write_report
from plasm.tasks import Task, total_loss

from . import checkpoints
from .signals import RunInterruptedError, catch_signals
from .state import TrainState

_VALIDATION_BATCH = 10
_STEPS_BETWEEN_LOOKS = 10
"""On a device that runs ahead of Python, how many steps it may be ahead: reading the loss waits for it."""


def check_parts(config: RunConfig, group: ProcessGroup) -> None:
    """Check that each part of a batch has as many clips as the others: their gradients are averaged as they are.

    Raises:
        ValueError: If it has not.
    """
    if config.batch_size % (group.size * config.accumulate):
        raise ValueError(
            f"batch_size {config.batch_size} is not a multiple of {group.size} processes x {config.accumulate} parts"
        )


class Trainer:
    """One run in progress, of any module that a task calls.

        config = TrainConfig(model="mine", data="mine", data_dir=".", out="runs/mine", epochs=5)
        Trainer(Prediction(module), train_set, val_set, config, on_epoch=print).fit()

    Args:
        task: What a step is.
        train_set: Clips of (T + T', C, H, W), a function of epoch and index.
        val_set: Clips to measure on.
        config: Of the run. Its ``model``, ``data`` and their arguments are noted, and nothing is made of them.
        model: The model that ``config.json`` describes, ``task.model`` or the one it was made from. Where timm did not
            make it, the weights are written without a ``config.json``.
        group: The processes that train together; by default this one, on ``config.device``.
        on_epoch: Called after each epoch, in the first process, with its row of the log: a logger, or whatever else is
            to happen then. What it raises ends the run, whose checkpoint stays.
    """

    def __init__(
        self,
        task: Task,
        train_set: Dataset[Tensor],
        val_set: Dataset[Tensor],
        config: RunConfig,
        *,
        model: nn.Module | None = None,
        group: ProcessGroup | None = None,
        on_epoch: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        self.exported, self.train_set, self.val_set = model or task.model, train_set, val_set
        self.group = group = group or ProcessGroup(0, 1, choose_device(config.device))
        check_parts(config, group)
        self.device, self.on_epoch = group.device, on_epoch
        if config.bf16 is None:
            config = replace(config, bf16=has_bf16(self.device))
        self.config, self.folder = config, RunFolder(Path(config.out))
        keep_freed_memory(self.device)
        if config.workers == 0:
            for dataset in (train_set, val_set):
                # Clips that are made rather than read are made where they are used.
                if hasattr(dataset, "to"):
                    dataset.to(self.device)
        self.task: Task = move(task, self.device)
        train_clips, val_clips = (len(clips) for clips in (train_set, val_set))  # type: ignore[arg-type]
        self.steps_per_epoch = min(config.clips_per_epoch, train_clips) // config.batch_size
        if not self.steps_per_epoch or not val_clips:
            raise ValueError(
                f"a training needs a batch of {config.batch_size} clips and one for validation, got {train_clips} and "
                f"{val_clips}"
            )
        self.clips_per_epoch = self.steps_per_epoch * config.batch_size
        sets = {"train": train_set, "val": val_set}
        data = {split: fingerprint(clips, Path(config.data_dir)) for split, clips in sets.items()}
        self.state = TrainState(self.task, config, self.steps_per_epoch, data)
        if config.compile:
            self.task.model.compile()
        self.replica: Any = DistributedDataParallel(self.task) if group.size > 1 else self.task
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=bool(config.bf16))
        # Number, learning rate and losses of each step whose losses have not been read yet: their sum, then each.
        self.unseen: list[tuple[int, float, Tensor]] = []
        self.loss_names: list[str] = []
        self.stop, self.started = False, False
        self.lock: AbstractContextManager[object] | None = None
        self.steps_between_looks = 1 if self.device.type == "cpu" else _STEPS_BETWEEN_LOOKS
        self.saved_at = time.monotonic()

    def start(
        self,
        history: Sequence[Mapping[str, Any]] = (),
        resume: bool = False,
        allow_changed_data: bool = False,
        locked: bool = False,
    ) -> None:
        """Check what can be checked, create the folder, and resume; ``fit`` calls it where it was not called.

        The folder is locked from here to the end of ``fit``.

        Args:
            history: Of the weights that the run begins with, as ``plasm.runs.read_history`` gives it.
            resume: Go on from the newest checkpoint, if there is one.
            allow_changed_data: Warn where the data is not what the run has seen.
            locked: The caller has locked the folder, and lets it go after ``fit``.

        Raises:
            ValueError: If the clips do not fit the model, or what is resumed does not fit this run.
            FileExistsError: If the folder holds a run, and it is not resumed, or another process trains in it.
            OSError: If the folder cannot be written, or every checkpoint is damaged.
        """
        with ExitStack() as lock:
            if not locked:
                lock.enter_context(self._locked())
            self._start(history, resume, allow_changed_data)
            self.lock = lock.pop_all()
        self.started = True

    def _locked(self) -> AbstractContextManager[None]:
        """Of the processes that train together, the first one keeps others from the folder that it writes."""
        return lock_folder(self.folder.path) if self.group.is_first else nullcontext()

    def _start(self, history: Sequence[Mapping[str, Any]], resume: bool, allow_changed_data: bool) -> None:
        if self.group.is_first:
            self.folder.check(self.config, resume)
        self.check()
        if self.group.is_first:
            self.folder.create(needed_bytes=self.state.num_bytes * 4)
        if resume:
            self.restore(allow_changed_data)
        if self.group.is_first:
            # Not before: a run that is refused leaves the configuration of the one that lies there.
            self.folder.save_config(self.config, [dict(row) for row in history])

    # Only training steps are compiled: validation is not worth another graph.
    @torch.compiler.set_stance("force_eager")
    @torch.no_grad()
    def check(self) -> None:
        """Send one validation clip through the task, so that what does not fit is known before anything is written.

        Raises:
            ValueError: If the clips do not fit the model.
        """
        index = torch.zeros(1, dtype=torch.int64, device=self.device)
        _, seen = self.task.eval()(self.val_set[0][None].to(self.device), index, None, 0)
        # As validation compares them.
        frame_mse(seen.prediction, seen.target)

    def save(self) -> None:
        """Write a checkpoint. Every process has the same state; the first one writes it."""
        self.saved_at = time.monotonic()
        self.state.check_finite()
        if self.group.is_first:
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
        if self.group.sum(taken) != taken * self.group.size:
            raise ValueError(
                f"process {self.group.rank} of {self.group.size} found another checkpoint in {self.folder.path} than "
                "the others: all of them must see the same --out"
            )
        if self.group.is_first:
            self.folder.log.read(self.state.epoch, self.clips_per_epoch)
            checkpoints.keep_last(self.folder.checkpoints, self.state.steps_done)

    def fit(self, epochs: int | None = None) -> None:
        """Train, and evaluate, save and draw every ``eval_every`` epochs and at the end.

        Args:
            epochs: Stop after so many, as if the run had been interrupted there.

        Raises:
            ValueError: If another process has trained in the folder since the last ``fit``.
        """
        config, state, last = self.config, self.state, self.config.epochs
        if not self.started:
            self.start()
        # A second fit, of more epochs, locks anew.
        again, lock = self.lock is None, self.lock or self._locked()
        self.lock = None
        with (
            lock,
            closing(self.folder.log),
            catch_signals() as self.caught,
            tqdm(
                total=last * self.clips_per_epoch, initial=state.steps_done * config.batch_size, desc=self.task.name,
                unit="clip", disable=None if self.group.is_first else True,
            ) as progress,
        ):  # fmt: skip
            if again and self.group.is_first and checkpoints.newest_step(self.folder.checkpoints) != state.steps_done:
                raise ValueError(
                    f"{self.folder.path} has another newest checkpoint than this trainer, which let it go after its "
                    "last fit: make a new one, and start(resume=True)"
                )
            while state.epoch < min(last, epochs or last):
                row = {"epoch": state.epoch + 1, **self._train_epoch(progress)}
                if row["epoch"] % config.eval_every == 0 or row["epoch"] == last:
                    state.check_finite()
                    if self.group.is_first:
                        self.folder.save_weights(self.exported, state.measured_tensors, self.task.name)
                    row["val_mse"] = self._evaluate()
                state.end_epoch()
                if self.group.is_first:
                    self.folder.log.append(row)
                    tqdm.write(
                        "  ".join(f"{k} {v:.5g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
                    )
                self.save()
                if self.on_epoch and self.group.is_first:
                    self.on_epoch(dict(row))
                if self.stop and state.epoch < last:
                    self._interrupt()
            if state.epoch == last and self.group.is_first and self.folder.log.rows:
                write_report(self.folder, config, self.task.model, self.device, self.group.size)

    def _train_epoch(self, progress: "tqdm[Any]") -> dict[str, float]:
        state = self.state
        self.task.train()
        started, first = time.perf_counter(), state.step
        loader = self._batches()
        for step in range(first, self.steps_per_epoch):
            lr = state.lr
            batch = [next(loader) for _ in range(self.config.accumulate)]
            # Dropout and its like are a function of the step, so that a run that is resumed draws the same. A loader
            # draws, too, when it starts: before this.
            torch.manual_seed(int(counter_hash(self.config.seed, state.epoch, step, self.group.rank)))
            self.unseen.append((step, lr, self._train_step(batch)))
            state.step = step + 1
            progress.update(self.config.batch_size)
            if state.step % self.steps_between_looks == 0 or state.step == self.steps_per_epoch:
                self._look(progress)
        seconds = time.perf_counter() - started
        return {
            "clips": (state.epoch + 1) * self.clips_per_epoch,
            "loss": state.loss_sum / self.steps_per_epoch,
            **{f"loss_{name}": total / self.steps_per_epoch for name, total in state.loss_sums.items()},
            "lr": lr,
            "clips_per_second": (self.steps_per_epoch - first) * self.config.batch_size / seconds,
        }

    def _train_step(self, batch: list[tuple[Tensor, ...]]) -> Tensor:
        """One step of the optimizer on (clips, index) or (clips, index, weight) parts of a batch.

        Returns their mean loss on the device, and if it is a sum, each of its terms.
        """
        state = self.state
        state.optimizer.zero_grad(set_to_none=True)
        totals = torch.zeros((), device=self.device)
        for number, (clips, index, *weight) in enumerate(batch, start=1):
            # Gradients travel between processes with the last part alone.
            alone = self.group.size > 1 and number < len(batch)
            with self.replica.no_sync() if alone else nullcontext():
                with self.autocast:
                    losses, _ = self.replica(clips, index.to(self.device), state.epoch, state.steps_done, *weight)
                    loss = total_loss(losses)
                loss = loss.float() / len(batch)
                loss.backward()
            self.loss_names = self.loss_names or list(losses)
            if set(self.loss_names) != set(losses):
                raise ValueError(
                    f"the losses of a task are the same at each step: it gave {', '.join(self.loss_names)}, now "
                    f"{', '.join(losses)}; give 0 of one that is not there"
                )
            terms = [losses[name].detach().float() / len(batch) for name in self._term_names]
            totals = totals + torch.stack([loss.detach(), *terms])
        if self.config.clip_grad > 0:
            nn.utils.clip_grad_norm_(state.parameters, self.config.clip_grad)
        state.take_step()
        return totals

    @property
    def _term_names(self) -> list[str]:
        """Names of the terms of the loss, none of one that is no sum."""
        return self.loss_names if len(self.loss_names) > 1 else []

    def _batches(self) -> Iterator[tuple[Tensor, ...]]:
        """The rest of an epoch, in an order of its own: this process's parts of each batch.

        A part is clips, index (B,) and, of a data set that has them, weights.
        """
        if hasattr(self.train_set, "set_epoch"):
            self.train_set.set_epoch(self.state.epoch)
        parts: list[list[int]] = []
        for batch in self._order()[self.state.step :].tolist():
            own = self.group.part(batch)
            size = len(own) // self.config.accumulate
            parts += [own[i : i + size] for i in range(0, len(own), size)]
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
        losses = torch.stack([losses for _, _, losses in self.unseen])
        stop = losses.new_tensor([float(bool(self.caught))])
        *values, stopped = self.group.sum(torch.cat([losses.T.flatten(), stop])).tolist()
        values = [value / self.group.size for value in values]
        steps = len(self.unseen)
        # The sum of each step, then each of its terms of all steps.
        values, *terms = (values[i : i + steps] for i in range(0, len(values), steps))
        for (step, lr, _), value in zip(self.unseen, values, strict=True):
            if not math.isfinite(value):
                self._stop_at(step, lr, value)
        named = dict(zip(self._term_names, terms, strict=True))
        shown = {name: f"{each[-1]:.4f}" for name, each in named.items()}
        progress.set_postfix({"loss": f"{values[-1]:.4f}", **shown, "lr": f"{lr:.2g}"})
        self.state.loss_sum += sum(values)
        for name, each in named.items():
            self.state.loss_sums[name] = self.state.loss_sums.get(name, 0.0) + sum(each)
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
        if self.group.is_first:
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
        self.group.broadcast(task.buffers())
        available = len(self.val_set)  # type: ignore[arg-type]
        count = min(self.config.val_clips, available)
        # Spread over all files, in which neighbours look alike.
        own = self.group.part([number * available // count for number in range(count)])
        batches = [own[i : i + _VALIDATION_BATCH] for i in range(0, len(own), _VALIDATION_BATCH)]
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        loaded = weighed_batches(self.val_set, batches, self.config.workers)
        for number, (batch, (clips, weight)) in enumerate(zip(batches, loaded, strict=True)):
            index = torch.tensor(batch, device=self.device)
            with self.autocast:
                _, seen = task(clips.to(self.device), index, None, self.state.steps_done, *self._weight(weight))
            total += frame_mse(seen.prediction, seen.target).mean(1).sum()
            if number == 0 and self.group.is_first:
                shown, truth, drawn = (frames[:4] for frames in seen)
                self.folder.draw(shown, truth, drawn, self.state.epoch + 1, task.follows)
        return self.group.sum(total).item() / count
