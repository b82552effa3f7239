"""The training loop. It knows models that map tensors to tensors, and nothing of what they are."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR
from torch.utils.data import Dataset
from tqdm import tqdm

from plasm import pictures, weights
from plasm.data import create_dataset
from plasm.data.counter_hash import counter_hash
from plasm.metrics import frame_mse
from plasm.models import PLASM

from .config import PretrainConfig, RunConfig, TrainConfig, save_config
from .evaluation import clip_batches
from .phases import Phase, prediction_phase, pretraining_phase
from .runs import make_model

__all__ = ["choose_device", "make_scheduler", "run"]

_VALIDATION_BATCH = 50


def choose_device(device: str) -> torch.device:
    """A torch device by name; "auto" is a GPU if there is one.

    Raises:
        ValueError: If there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {device!r} here: {str(error).splitlines()[0]}") from error


def make_scheduler(optimizer: torch.optim.Optimizer, config: RunConfig, num_steps: int) -> LRScheduler:
    """Learning rate of each step: torch's one-cycle (Smith and Topin), half a cosine down to 0, or constant.

    Raises:
        ValueError: If the schedule is unknown.
    """
    if config.schedule == "onecycle":
        # torch would cycle Adam's beta1, too, by default; the paper keeps .9.
        return OneCycleLR(optimizer, max_lr=config.lr, total_steps=num_steps, cycle_momentum=False)
    if config.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=num_steps)
    if config.schedule == "constant":
        return LambdaLR(optimizer, lambda step: 1.0)
    raise ValueError(f"schedule is onecycle, cosine or constant, got {config.schedule!r}")


def run(config: PretrainConfig | TrainConfig) -> None:
    """Train a model from scratch or from a phase-1 run, and leave weights, log and pictures in ``config.out``.

    Raises:
        ValueError: If the configuration does not fit the model or the data.
        FileExistsError: If ``config.out`` holds a run already.
        FloatingPointError: If the loss is not finite any more.
    """
    out = Path(config.out)
    if (out / "run.json").exists():
        raise FileExistsError(f"{out} holds a run already; choose another --out")
    if (
        min(config.epochs, config.eval_every, config.val_clips) < 1
        or not 1 <= config.batch_size <= config.clips_per_epoch
    ):
        raise ValueError("epochs, eval_every, val_clips and batch_size are at least 1, and an epoch holds a batch")
    torch.manual_seed(config.seed)
    model = make_model(config.model, **config.model_args)
    phase = pretraining_phase(model, config) if isinstance(config, PretrainConfig) else prediction_phase(model, config)
    num_frames = model.in_frames + model.out_frames
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
    if (channels := train_set[0].shape[1]) != model.in_chans:
        raise ValueError(
            f"{config.data} has clips of {channels} channel(s), {config.model} takes {model.in_chans}: "
            f"--model-arg in_chans={channels}, or an option of the data set"
        )
    in_progress = _Run(phase, model, train_set, val_set, config, out)
    in_progress.check()
    out.mkdir(parents=True, exist_ok=True)
    save_config(config, out / "run.json")
    in_progress.fit()


class _Run:
    """State of a run in progress."""

    def __init__(
        self,
        phase: Phase,
        plasm: PLASM,
        train_set: Dataset[Tensor],
        val_set: Dataset[Tensor],
        config: RunConfig,
        out: Path,
    ) -> None:
        self.phase, self.plasm, self.train_set, self.val_set = phase, plasm, train_set, val_set
        self.config, self.out = config, out
        self.device = choose_device(config.device)
        # Convolutions are faster in this format, on a CPU most of all.
        self.model = phase.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.module: nn.Module = torch.compile(self.model) if config.compile else self.model  # type: ignore[assignment]
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.lr, betas=(0.9, 0.999), fused=True)
        self.steps_per_epoch = min(config.clips_per_epoch, len(train_set)) // config.batch_size  # type: ignore[arg-type]
        self.scheduler = make_scheduler(self.optimizer, config, config.epochs * self.steps_per_epoch)
        self.log: list[dict[str, Any]] = []

    @torch.no_grad()
    def check(self) -> None:
        """Send one validation clip through the model, so that what does not fit is known before anything is written.

        Raises:
            ValueError: If the clips do not fit the model.
        """
        index = torch.zeros(1, dtype=torch.int64, device=self.device)
        inputs, target = self.phase.inputs(self.val_set[0][None].to(self.device), index, None)
        shape = self.model(*inputs).shape
        if shape != target.shape:
            raise ValueError(f"the model gives {tuple(shape)} where the clips need {tuple(target.shape)}")

    def fit(self) -> None:
        """Train, and evaluate, save and draw every ``eval_every`` epochs and at the end."""
        config = self.config
        total = config.epochs * self.steps_per_epoch * config.batch_size
        with tqdm(total=total, desc=self.phase.name, unit="clip", disable=None) as progress:
            for epoch in range(config.epochs):
                row = {"epoch": epoch + 1, **self._train_epoch(epoch, progress)}
                if (epoch + 1) % config.eval_every == 0 or epoch + 1 == config.epochs:
                    self._save(row["lr"], epoch)
                    row["val_mse"] = self._evaluate(epoch)
                self._write_log(row)

    def _train_epoch(self, epoch: int, progress: "tqdm[Any]") -> dict[str, float]:
        self.model.train()
        started = time.perf_counter()
        total = torch.zeros((), device=self.device)
        for step, (clips, index) in enumerate(self._batches(epoch)):
            lr = self.optimizer.param_groups[0]["lr"]
            loss = self._train_step(clips, index, epoch)
            total += loss
            progress.update(len(clips))
            if step % 10 == 0:
                # Not at every step: it waits for the device.
                progress.set_postfix(loss=f"{self._finite(loss, epoch, lr):.4f}", lr=f"{lr:.2g}")
        clips_seen = self.steps_per_epoch * self.config.batch_size
        return {
            "clips": (epoch + 1) * clips_seen,
            "loss": self._finite(total, epoch, lr) / self.steps_per_epoch,
            "lr": lr,
            "clips_per_second": clips_seen / (time.perf_counter() - started),
        }

    def _finite(self, loss: Tensor, epoch: int, lr: float) -> float:
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the loss is {value} in epoch {epoch + 1}, at a learning rate of {lr:.2g}; a smaller --lr or "
                f"--clip-grad may help. Weights in {self.out}, if any, are from before"
            )
        return value

    def _train_step(self, clips: Tensor, index: Tensor, epoch: int) -> Tensor:
        inputs, target = self.phase.inputs(clips, index, epoch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            prediction = self.module(*inputs)
        loss = F.mse_loss(prediction.float(), target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.clip_grad > 0:
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_grad)
        self.optimizer.step()
        self.scheduler.step()
        return loss.detach()

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of an epoch, (B, T + T', C, H, W) and their index (B,), in an order of its own."""
        if hasattr(self.train_set, "set_epoch"):
            self.train_set.set_epoch(epoch)
        generator = torch.Generator().manual_seed(int(counter_hash(self.config.seed, epoch)))
        order = torch.randperm(len(self.train_set), generator=generator)  # type: ignore[arg-type]
        batches = order[: self.steps_per_epoch * self.config.batch_size].view(self.steps_per_epoch, -1)
        for index, clips in zip(
            batches, clip_batches(self.train_set, batches.tolist(), self.config.workers), strict=True
        ):
            yield clips.to(self.device, non_blocking=True), index.to(self.device, non_blocking=True)

    @torch.no_grad()
    def _evaluate(self, epoch: int) -> float:
        """Frame MSE on the validation clips; the first of them as a picture."""
        self.model.eval()
        available = len(self.val_set)  # type: ignore[arg-type]
        count = min(self.config.val_clips, available)
        # Spread over all files, in which neighbours look alike.
        order = [number * available // count for number in range(count)]
        batches = [order[i : i + _VALIDATION_BATCH] for i in range(0, len(order), _VALIDATION_BATCH)]
        total, loaded = 0.0, clip_batches(self.val_set, batches, self.config.workers)
        for number, (batch, clips) in enumerate(zip(batches, loaded, strict=True)):
            inputs, target = self.phase.inputs(clips.to(self.device), torch.tensor(batch, device=self.device), None)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
                prediction = self.model(*inputs).float()
            total += frame_mse(prediction, target).mean(1).sum().item()
            if number == 0:
                self._draw(self.phase.shown(*inputs)[:4], target[:4], prediction[:4], epoch)
        return total / len(order)

    def _draw(self, shown: Tensor, target: Tensor, prediction: Tensor, epoch: int) -> None:
        folder = self.out / "samples"
        folder.mkdir(exist_ok=True)
        picture = pictures.strip(shown, prediction, target, follows=self.phase.name == "prediction")
        picture.save(folder / f"epoch_{epoch + 1:04d}.png")

    def _save(self, lr: float, epoch: int) -> None:
        tensors = self.model.state_dict()
        # The loss is that of the weights before the last step.
        self._finite(sum(tensor.sum(dtype=torch.float64) for tensor in tensors.values()), epoch, lr)
        weights.save_pretrained(self.plasm, self.out, {"phase": self.phase.name}, tensors)

    def _write_log(self, row: dict[str, Any]) -> None:
        self.log.append(row)
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        tqdm.write("  ".join(f"{k} {v:.5g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
        pictures.curves(self.log, self.out / "curves.png")
