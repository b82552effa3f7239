"""A script for torchrun, or for one process: what processes that train together compute, for the first to save.

python together.py step|evaluate|die|run|norm|norm-average OUT DATA
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from plasm import training
from plasm.data import create_dataset
from plasm.distributed import ProcessGroup, init_process_group
from plasm.evaluation import BASELINES, evaluate
from plasm.training import TrainConfig
from plasm.training.assembly import prepare

MODEL: dict[str, Any] = {"encoder_dim": 8, "translator_dim": 16, "translator_depth": 1}


def config(out: str, data: str, accumulate: int = 1) -> TrainConfig:
    return TrainConfig(
        model="plasm_mmnist_tiny", data="mmnist", data_dir=data, out=out, epochs=2, clips_per_epoch=16, batch_size=8,
        val_clips=5, device="cpu", model_args=MODEL, bf16=False, optimizer="sgd", lr=0.5, accumulate=accumulate,
    )  # fmt: skip


def with_batch_norm(out: str, data: str, average: bool) -> TrainConfig:
    args = {"encoder_dim": 4, "translator_dim": 8, "encoder_depth": 2, "translator_depth": 2}
    return replace(
        config(out, data), model="simvp_gsta_mmnist", model_args=args, epochs=1, lr=0.01, ema=0.5 if average else 0.0
    )


def gradients(group: ProcessGroup, out: str, data: str, accumulate: int = 1) -> dict[str, torch.Tensor]:
    """Of the first step, not clipped; and the error on the validation clips before it."""
    settings = config(out, data, accumulate)
    object.__setattr__(settings, "clip_grad", 0.0)
    trainer = prepare(settings, group, resume=False)
    error = torch.tensor(trainer._evaluate())
    trainer.task.train()
    batches = trainer._batches()
    loss = trainer._train_step([next(batches) for _ in range(accumulate)])
    named = {name: p.grad for name, p in trainer.task.model.named_parameters() if p.grad is not None}
    return {**named, "val_mse": error, "loss": group.sum(loss) / group.size}


def main() -> None:
    task, out, data = sys.argv[1:]
    if task == "run":
        training.run(config(out, data))
        return
    with init_process_group(torch.device("cpu")) as group:
        if task == "step":
            tensors = gradients(group, out, data, accumulate=2)
            if group.is_first:
                save_file({name: t.contiguous() for name, t in tensors.items()}, Path(out) / "step.safetensors")
        if task == "evaluate":
            clips = create_dataset("mmnist", Path(data), "test", num_clips=7)
            seen = evaluate(BASELINES, clips, 10, 10, batch_size=2, group=group, ssim=False)["last frame"]
            if group.is_first:
                means = {name: torch.tensor(value) for name, value in seen.means.items()}
                save_file({**means, "num_clips": torch.tensor(seen.num_clips)}, Path(out) / "metrics.safetensors")
        if task.startswith("norm"):
            trainer = prepare(with_batch_norm(out, data, average=task == "norm-average"), group, resume=False)
            if not group.is_first:
                plain = trainer._evaluate

                def evaluate_other() -> float:
                    for buffer in trainer.state.measured.buffers():
                        buffer.add_(1)  # as if this process had seen quite other clips than the first
                    return plain()

                trainer._evaluate = evaluate_other  # type: ignore[method-assign]
            trainer.fit()
        if task == "die":
            trainer = prepare(config(out, data), group, resume=False)
            if not group.is_first:
                step = trainer._train_step

                def die(batch: Any) -> torch.Tensor:
                    if trainer.state.epoch == 1:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return step(batch)

                trainer._train_step = die  # type: ignore[method-assign]
            trainer.fit()


if __name__ == "__main__":
    main()
