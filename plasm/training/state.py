"""The state of a run: all that a checkpoint holds, by the names of the parameters."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from plasm.runs import RunConfig

from . import checkpoints
from .optim import make_optimizer, make_scheduler
from .task import Task

__all__ = ["TrainState"]

_logger = logging.getLogger(__name__)


class TrainState:
    """Model, optimizer, learning rate, average of the weights, and the place in the run.

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
    """

    def __init__(self, task: Task, config: RunConfig, steps_per_epoch: int, data: Mapping[str, Any]) -> None:
        self.task, self.config, self.steps_per_epoch, self.data = task, config, steps_per_epoch, data
        self.average = ModelEmaV3(task, decay=config.ema) if config.ema else None
        self.measured: Task = self.average.module if self.average else task
        self.optimizer = make_optimizer(task.model, config)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.scheduler = make_scheduler(self.optimizer, config, config.epochs * steps_per_epoch)
        self.epoch, self.step, self.loss_sum = 0, 0, 0.0

    @property
    def steps_done(self) -> int:
        """Steps that the optimizer has taken."""
        return self.epoch * self.steps_per_epoch + self.step

    @property
    def num_bytes(self) -> int:
        """Size of a checkpoint, about: the weights, two moments of each that is trained, and the average."""
        weights = sum(p.numel() * p.element_size() for p in self.task.model.parameters())
        return weights * (2 if self.average else 1) + 2 * sum(p.numel() * p.element_size() for p in self.parameters)

    def take_step(self) -> None:
        """Move the weights along their gradients, and the learning rate and the average with them."""
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
        model, optimizer = self._state_dicts()
        values = {
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "data": {"steps_per_epoch": self.steps_per_epoch, **self.data},
            "param_groups": optimizer["param_groups"],
            # Muon notes which of its two methods a parameter is for.
            "optimizer": {
                name: {key: value for key, value in state.items() if not torch.is_tensor(value)}
                for name, state in optimizer["state"].items()
            },
            "scheduler": self.scheduler.state_dict(),
        }
        checkpoints.save(self._tensors(model, optimizer), values, folder, self.steps_done)

    @torch.no_grad()
    def restore(self, folder: Path, allow_changed_data: bool = False) -> None:
        """Take up the newest checkpoint of ``RUN/checkpoints``, if there is one.

        Args:
            folder: The folder.
            allow_changed_data: Warn where the data is not what the run has seen.

        Raises:
            OSError: If every checkpoint is damaged.
            ValueError: If it is not one of this run: of an earlier version of plasm, of another learning rate, or of
                other data.
        """
        found = checkpoints.load_newest(folder)
        if found is None:
            return
        values = found.values
        # A fresh optimizer's state has the memory format of the parameters, which files do not know: fill it.
        model, optimizer = self._state_dicts()
        own = self._tensors(model, optimizer)
        if _shapes(own) != _shapes(found.tensors):
            raise ValueError(
                f"the checkpoints in {folder} have tensors of other names or shapes: an earlier plasm wrote them, or "
                "this one with another model. Resume with the version that began the run, or start another with --init"
            )
        self._compare_data(values.get("data"), folder.parent, allow_changed_data)
        for name, tensor in own.items():
            tensor.copy_(found.tensors[name])
        for name, plain in values["optimizer"].items():
            optimizer["state"][name].update(plain)
        optimizer["param_groups"] = values["param_groups"]
        set_state_dict(self.task.model, self.optimizer, model_state_dict=model, optim_state_dict=optimizer)
        self.epoch, self.step, self.loss_sum = values["epoch"], values["step"], values["loss_sum"]
        self._take_up_schedule(values["scheduler"], folder)

    def _compare_data(self, seen: Mapping[str, Any] | None, run: Path, allow_changed: bool) -> None:
        if seen is None:
            _logger.warning("the checkpoint in %s does not say which data it has seen: it is not compared", run)
            return
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
        _logger.warning("%s: going on, as asked", message)

    def _take_up_schedule(self, state: Mapping[str, Any], folder: Path) -> None:
        planned = [rate(self.steps_done) * self.config.lr for rate in getattr(self.scheduler, "lr_lambdas", ())]
        self.scheduler.load_state_dict(dict(state))
        if planned and not math.isclose(planned[0], self.scheduler.get_last_lr()[0], rel_tol=1e-9):
            raise ValueError(
                f"{folder.parent} has a learning rate of {self.scheduler.get_last_lr()[0]:.3g} after step "
                f"{self.steps_done}, where this configuration has {planned[0]:.3g}: a run that decays already "
                "cannot be made longer; start another with --init"
            )

    def _state_dicts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of the model, and of the optimizer, by the names of the parameters; of a fresh one, too."""
        model, optimizer = get_state_dict(self.task.model, self.optimizer)
        return model, dict(optimizer)

    def _tensors(self, model: Mapping[str, Any], optimizer: Mapping[str, Any]) -> dict[str, Tensor]:
        """Every tensor of the state, by name: the very ones, not copies."""
        parts = {"model": model, "ema": self.average.module.model.state_dict() if self.average else {}}
        tensors = {f"{part}.{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
        for name, state in optimizer["state"].items():
            tensors |= {f"optimizer.{name}.{key}": value for key, value in state.items() if torch.is_tensor(value)}
        return tensors


def _change(name: str, seen: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In what the fingerprints of a split differ."""
    counts = [f"{data['files']} {name} files with {data['clips']} clips" for data in (now, seen)]
    if counts[0] != counts[1]:
        return f"{counts[0]}, were {counts[1].replace(f' {name}', '')}"
    return f"other names, sizes or content of its {name} files, {counts[0].replace(f' {name}', '')}"


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
