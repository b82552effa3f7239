"""The state of a run: all that a checkpoint holds, by the names of the parameters."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor

from plasm.runs import RunConfig
from plasm.tasks import Task
from plasm.weights import unwrapped

from . import checkpoints
from .encoding import decode, encode
from .optim import create_optimizer, create_scheduler

_logger = logging.getLogger(__name__)
_OPTIMIZER = "optimizer"
_OF_EVERY_OPTIMIZER = ("state", "param_groups")


class TrainState:
    """Model, optimizer, learning rate, average of the weights, and the steps done.

    Args:
        task: Of the run, its model on its device and in its memory format.
        config: Of the run.
        steps_per_epoch: Of the optimizer.
        data: Fingerprints of the clips for "train" and "val", which a checkpoint keeps.

    Attributes:
        measured: The task that is measured, and whose model is saved: with the averaged weights, if there are.
        epoch: Epochs done.
        step: Steps done of the next epoch.
        loss_sum: Of these steps.
        loss_sums: Of these steps, each of the losses of the task by name.
    """

    def __init__(self, task: Task, config: RunConfig, steps_per_epoch: int, data: Mapping[str, Any]) -> None:
        self.task, self.config, self.steps_per_epoch, self.data = task, config, steps_per_epoch, data
        self.average = ModelEmaV3(task, decay=config.ema) if config.ema else None
        self.measured: Task = self.average.module if self.average else task
        # A user may have compiled it already, which gives its tensors other names.
        self.model = unwrapped(task.model)
        self.optimizer = create_optimizer(self.model, config)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.scheduler = create_scheduler(self.optimizer, config, config.epochs * steps_per_epoch)
        self.epoch, self.step = 0, 0
        self.loss_sum, self.loss_sums = 0.0, dict[str, float]()

    @property
    def lr(self) -> float:
        """Learning rate of the next step; the largest, where layers have their own."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def end_epoch(self) -> None:
        """Begin the next epoch."""
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum, self.loss_sums = 0.0, {}

    @property
    def steps_done(self) -> int:
        """Steps that the optimizer has taken."""
        return self.epoch * self.steps_per_epoch + self.step

    @property
    def measured_tensors(self) -> dict[str, Tensor]:
        """Those of the model that is measured, as it is saved."""
        tensors: dict[str, Tensor] = unwrapped(self.measured.model).state_dict()
        return tensors

    @property
    def num_bytes(self) -> int:
        """Size of a checkpoint, about: the weights, two moments of each that is trained, and the average."""
        weights = sum(p.numel() * p.element_size() for p in self.model.parameters())
        return weights * (2 if self.average else 1) + 2 * sum(p.numel() * p.element_size() for p in self.parameters)

    def take_step(self) -> None:
        """Move the weights along their gradients, and the learning rate and the average with them."""
        # Some compile parts of themselves, which takes longer than it saves.
        with torch.compiler.set_stance("force_eager"):
            self.optimizer.step()
        self.scheduler.step()
        if self.average:
            self.average.update(self.task)

    def check_finite(self) -> None:
        """Raise FloatingPointError before weights that are not finite are saved: the loss is that of a step before."""
        if not all(torch.stack([p.detach().isfinite().all() for p in self.parameters]).tolist()):
            raise FloatingPointError(
                f"weights are not finite after step {self.step} of epoch {self.epoch + 1}; a smaller --lr or "
                "--clip-grad may help. What --out holds of them, if anything, is from before"
            )

    def save(self, folder: Path) -> None:
        """Write a checkpoint into ``RUN/checkpoints``."""
        tensors = self._model_tensors()
        values = {
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "loss_sums": self.loss_sums,
            "data": {"steps_per_epoch": self.steps_per_epoch, **self.data},
            **self._optimizer_values(tensors),
            "scheduler": self.scheduler.state_dict(),
        }
        checkpoints.save(tensors, values, folder, self.steps_done)

    @torch.no_grad()
    def restore(self, folder: Path, allow_changed_data: bool = False) -> None:
        """Take up the newest checkpoint of ``RUN/checkpoints``, if there is one.

        Raises:
            OSError: If every checkpoint is damaged.
            ValueError: If it is of an earlier version of plasm, of another learning rate or run, or of other
                data, where that is not allowed.
        """
        found = checkpoints.load_newest(folder)
        if found is None:
            return
        try:
            self._take_up(found, folder, allow_changed_data)
        except (LookupError, TypeError, AttributeError) as error:
            # Its digest is right: another version of plasm wrote it.
            raise ValueError(
                f"the checkpoints in {folder} do not say what this plasm needs: an earlier plasm wrote them, or this "
                "one with another model, or they were changed. Resume with the version that began the run, or start "
                "another with --init"
            ) from error

    def _take_up(self, found: checkpoints.Checkpoint, folder: Path, allow_changed_data: bool) -> None:
        values = found.values
        if not all(type(values[name]) is int and values[name] >= 0 for name in ("epoch", "step")):
            raise TypeError("epoch and step are no counts")
        own = self._model_tensors()
        saved = {name: tensor for name, tensor in found.tensors.items() if not name.startswith(_OPTIMIZER)}
        if _shapes(own) != _shapes(saved):
            raise LookupError("tensors of other names or shapes")
        self._compare_data(values["data"], folder.parent, allow_changed_data)
        epoch, step = values["epoch"], values["step"]
        if epoch + (step > 0) > self.config.epochs:
            beyond = f" and {step} steps" if step else ""
            raise ValueError(
                f"{folder.parent} has {epoch} epochs{beyond} already, more than --epochs {self.config.epochs}: ask for "
                "more, or start another with --init"
            )
        for name, tensor in own.items():
            tensor.copy_(saved[name])
        self._restore_optimizer(found)
        self.epoch, self.step = epoch, step
        self.loss_sum, self.loss_sums = values["loss_sum"], values["loss_sums"]
        self._take_up_schedule(values["scheduler"], folder)

    def _compare_data(self, seen: Mapping[str, Any], run: Path, allow_changed: bool) -> None:
        changed = [
            _change(name, seen[split], self.data[split])
            for split, name in (("train", "training"), ("val", "validation"))
            if seen[split] != self.data[split]
        ]
        if not changed:
            return
        message = f"{self.config.data_dir} is not the data that {run} has seen: {'; '.join(changed)}"
        if seen["steps_per_epoch"] != self.steps_per_epoch:
            raise ValueError(
                f"{message}. An epoch would have {self.steps_per_epoch} steps, and had {seen['steps_per_epoch']}: put "
                f"the files back as they were, or start another run with --init {run}"
            )
        if not allow_changed:
            raise ValueError(
                f"{message}. Put the files back as they were, or start another run with --init {run}; "
                "--allow-changed-data goes on nevertheless"
            )
        _logger.warning("%s: going on (--allow-changed-data)", message)

    def _take_up_schedule(self, state: Mapping[str, Any], folder: Path) -> None:
        planned = [
            rate(self.steps_done) * base
            for rate, base in zip(getattr(self.scheduler, "lr_lambdas", ()), self.scheduler.base_lrs, strict=False)
        ]
        self.scheduler.load_state_dict(dict(state))
        found = max(self.scheduler.get_last_lr())
        if planned and not math.isclose(max(planned), found, rel_tol=1e-9):
            raise ValueError(
                f"{folder.parent} has a learning rate of {found:.3g} after step "
                f"{self.steps_done}, where this configuration has {max(planned):.3g}: a run that decays already "
                "cannot be made longer; start another with --init"
            )

    def _model_tensors(self) -> dict[str, Tensor]:
        """Every tensor of model and average, by name: the very ones, not copies."""
        parts = {"model": self.model.state_dict()}
        if self.average:
            parts["ema"] = self.measured_tensors
        return {f"{part}.{name}": tensor for part, named in parts.items() for name, tensor in named.items()}

    def _optimizer_values(self, tensors: dict[str, Tensor]) -> dict[str, Any]:
        """All that the optimizer knows, but for its tensors, which ``tensors`` gets: ``optimizer.PARAMETER.KEY``."""
        trained, kept = self._trained(), dict[str, Tensor]()
        names = {id(parameter): name for name, parameter in trained.items()}
        groups = [{**group, "params": [names[id(p)] for p in group["params"]]} for group in self.optimizer.param_groups]
        state = {name: self.optimizer.state.get(parameter, {}) for name, parameter in trained.items()}
        others = {key: value for key, value in self.optimizer.state_dict().items() if key not in _OF_EVERY_OPTIMIZER}
        values = {
            "param_groups": encode(groups, f"{_OPTIMIZER} groups", kept),
            "optimizer": encode(state, _OPTIMIZER, kept),
            "optimizer_others": encode(others, f"{_OPTIMIZER} others", kept),
            # The sum of a tensor depends on the order in which it lies in memory, to rounding.
            "strides": {
                name: tensor.stride()
                for name, tensor in kept.items()
                if tensor.stride() != torch.empty(tensor.shape, device="meta").stride()
            },
        }
        tensors |= kept
        return values

    def _trained(self) -> dict[str, Tensor]:
        """The parameters of the optimizer, by name."""
        own = {id(parameter) for parameter in self.parameters}
        return {name: p for name, p in self.model.named_parameters() if id(p) in own}

    def _restore_optimizer(self, found: checkpoints.Checkpoint) -> None:
        strides, trained = found.values["strides"], self._trained()
        tensors = {
            name: torch.empty_strided(tensor.shape, strides[name], dtype=tensor.dtype).copy_(tensor)
            if name in strides
            else tensor
            for name, tensor in found.tensors.items()
        }
        groups, states, others = (
            decode(found.values[name], tensors) for name in ("param_groups", "optimizer", "optimizer_others")
        )
        numbers = {id(p): number for number, p in enumerate(self.parameters)}
        numbered = [[numbers[id(trained[name])] for name in group["params"]] for group in groups]
        own = [[numbers[id(p)] for p in group["params"]] for group in self.optimizer.param_groups]
        if list(map(sorted, numbered)) != own:
            raise LookupError("other parameters are trained")
        # load_state_dict moves tensors to their devices, and may cast them.
        state = {numbers[id(trained[name])]: each for name, each in states.items() if each}
        groups = [{**group, "params": params} for group, params in zip(groups, own, strict=True)]
        self.optimizer.load_state_dict({**others, "state": state, "param_groups": groups})
        for name, exact in states.items():
            placed = self.optimizer.state.get(trained[name], {})
            for key, value in exact.items():
                if key in placed:
                    placed[key] = _placed(value, placed[key])


def _placed(exact: Any, placed: Any) -> Any:
    """A value of a checkpoint where the optimizer has put it, in its own dtype and layout."""
    if isinstance(exact, (list, tuple)) and type(placed) is type(exact):
        return type(exact)(_placed(one, other) for one, other in zip(exact, placed, strict=True))
    if not (torch.is_tensor(exact) and torch.is_tensor(placed)):
        return placed
    # Not the file's own, which may be mapped, nor one that a loader has cast.
    return torch.empty_strided(exact.shape, exact.stride(), dtype=exact.dtype, device=placed.device).copy_(exact)


def _change(name: str, seen: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In what the fingerprints of a split differ."""
    counts = [f"{data['files']} {name} files with {data['clips']} clips" for data in (now, seen)]
    if counts[0] != counts[1]:
        return f"{counts[0]}, were {counts[1].replace(f' {name}', '')}"
    return f"other names, sizes or content of its {name} files, {counts[0].replace(f' {name}', '')}"


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
