r"""A short training of every recurrent system on Moving MNIST at a reduced size, with curves in one picture.

Usage: python benchmarks/recurrent_training.py --data-dir mnist --out curves.png [--clips 2000] [--seed 0] [MODEL ...]

Each system has two layers of few channels, and CrevNet, whose width nothing decides, two modules. The task of its
family trains it, with a sampling schedule that ends at half of the run, and Adam with one cycle of the learning rate.
Printed are the squared error of a frame on held-out clips, as ``plasm evaluate`` measures it, and that of black frames.
"""

import json
from pathlib import Path
from typing import Any

import click
import matplotlib.pyplot as plt
import timm
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

import plasm  # noqa: F401
from plasm.data import create_dataset
from plasm.devices import move
from plasm.evaluation import frame_mse
from plasm.files import atomic_write
from plasm.models import create_task
from plasm.tasks import total_loss

STACK: dict[str, Any] = {"hidden_dims": (32, 32)}
SMALL: dict[str, dict[str, Any]] = {
    **{f"{name}_mmnist": STACK for name in ("convlstm", "predrnn", "predrnnpp", "predrnnv2", "mim", "mau", "stam")},
    # Its recall attends between all positions of a state and of those before: patches of 8 make that 16 times less.
    "e3dlstm_mmnist": {**STACK, "patch_size": 8},
    "phydnet_mmnist": {"residual_dims": (32, 64)},
    "crevnet_mmnist": {"depths": (1, 1, 1), "num_modules": 2},
}


def batch(dataset: Any, start: int, size: int) -> tuple[Tensor, Tensor]:
    """Clips, and the frames that follow."""
    clips = torch.stack([dataset[index % len(dataset)] for index in range(start, start + size)])
    return clips[:, :10], clips[:, 10:]


@torch.no_grad()
def error(model: nn.Module | None, dataset: Any, size: int) -> float:
    """Mean squared error of a frame; of black frames without a model."""
    total = 0.0
    for start in range(0, len(dataset), size):
        clip, target = batch(dataset, start, min(size, len(dataset) - start))
        forecast = torch.zeros_like(target) if model is None else model(clip)
        total += frame_mse(forecast, target).mean(1).sum().item()
    return total / len(dataset)


def train(name: str, train_set: Any, val_set: Any, size: int, seed: int, lr: float) -> list[tuple[int, float]]:
    """Clips seen and the validation error, ten times on the way."""
    steps = len(train_set) // size
    sampling = {"forcing_steps" if name.startswith("phydnet") else "sampling_stop": steps // 2}
    torch.manual_seed(seed)
    model = move(timm.create_model(name, **SMALL[name]), torch.device("cpu"))
    task = create_task(name, model, **sampling).train()
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = OneCycleLR(optimizer, max_lr=lr, total_steps=steps, cycle_momentum=False)
    curve = [(0, error(model, val_set, size))]
    for step in range(steps):
        torch.manual_seed(seed + step)
        losses, _ = task(torch.cat(batch(train_set, step * size, size), 1), torch.arange(size), 0, step)
        optimizer.zero_grad()
        total_loss(losses).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        if (step + 1) % max(1, steps // 10) == 0 or step + 1 == steps:
            curve.append(((step + 1) * size, error(model, val_set, size)))
            print(f"{name}: {curve[-1][0]} clips, MSE {curve[-1][1]:.2f}", flush=True)
    return curve


def read(file: Path) -> dict[str, Any]:
    """What is there: curves, and errors of black frames, by what they are of."""
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


@click.command()
@click.argument("models", nargs=-1)
@click.option("--data-dir", required=True, type=Path)
@click.option("--out", required=True, type=Path)
@click.option("--clips", default=2000)
@click.option("--val-clips", default=50)
@click.option("--batch-size", default=8)
@click.option("--lr", default=2e-3)
@click.option("--seed", default=0)
def main(
    models: tuple[str, ...],
    data_dir: Path,
    out: Path,
    clips: int,
    val_clips: int,
    batch_size: int,
    lr: float,
    seed: int,
) -> None:
    """Train MODELS, all by default, and draw their curves; the numbers go beside the picture, as JSON.

    What is there already, with the same settings, is not trained again.
    """
    train_set = create_dataset("mmnist", data_dir, "train", num_clips=clips, num_frames=20, seed=seed)
    val_set = create_dataset("mmnist", data_dir, "val", num_clips=val_clips, num_frames=20)
    black = error(None, val_set, batch_size)
    print(f"black: MSE {black:.2f}", flush=True)
    file = out.with_suffix(".json")
    alike = f"{clips:,} clips, {val_clips:,} to validate, batch {batch_size}, seed {seed}"
    for name in models or tuple(SMALL):
        key = f"{name}, rate {lr:g}, {alike}"
        if key not in read(file):
            curve = train(name, train_set, val_set, batch_size, seed, lr)
            # Read again: another process may have trained another model in the meantime.
            with atomic_write(file) as beside:
                beside.write_text(json.dumps({**read(file), key: curve, f"black, {alike}": black}), encoding="utf-8")
    # One picture compares what was trained and measured on the same clips; rates may differ.
    curves = {key: curve for key, curve in read(file).items() if key.endswith(alike) and not key.startswith("black")}
    figure, axes = plt.subplots(figsize=(7, 4))
    for key, curve in curves.items():
        axes.plot(*zip(*curve, strict=True), label=", ".join(key.split(", ")[:2]))
    axes.axhline(black, color="black", linestyle="--", label="black")
    axes.set(xlabel="clips", ylabel="MSE", ylim=(0.7 * black, 1.25 * black))
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    with atomic_write(out) as beside:
        figure.savefig(beside, format=out.suffix[1:] or "png", dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    main()
