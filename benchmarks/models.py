r"""Clips a second of models, forward and training step, measured in turn in one run.

Usage: python benchmarks/models.py [--batch-size 16] [--rounds 5] [--device cpu] MODEL[,NAME=VALUE...] ...

Sizes around plasm_mmnist_tiny:

    python benchmarks/models.py plasm_mmnist_tiny plasm_mmnist_tiny,translator_dim=192,skip=False \\
        plasm_mmnist_tiny,translator_dim=192 plasm_mmnist_tiny,encoder_dim=32
"""

import ast
import statistics
import time
from collections.abc import Callable
from typing import Any

import click
import timm
import torch
import torch.nn.functional as F

from plasm.devices import has_bf16, keep_freed_memory, move
from plasm.models import summarize


def create_steps(name: str, args: dict[str, Any], batch_size: int, device: str) -> dict[str, Callable[[], None]]:
    """The two things that are timed."""
    model = move(timm.create_model(name, **args), torch.device(device))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    size = (model.in_chans, *model.pretrained_cfg["input_size"][1:])
    clip = torch.rand(batch_size, model.in_frames, *size, device=device)
    target = torch.rand(batch_size, model.out_frames, *size, device=device)

    bf16 = has_bf16(torch.device(device))

    def forward() -> None:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=bf16):
            model(clip)

    def train() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            out = model(clip)
        F.mse_loss(out.float(), target).backward()
        optimizer.step()
        optimizer.zero_grad()

    return {"forward": forward, "train": train}


def seconds(step: Callable[[], None], device: str) -> float:
    started = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--batch-size", default=16)
@click.option("--rounds", default=5)
@click.option("--device", default="cpu")
def main(models: tuple[str, ...], batch_size: int, rounds: int, device: str) -> None:
    """Print clips a second of MODELS, in bf16 where the device has it, channels_last, and as a ratio to the first."""
    keep_freed_memory(torch.device(device))
    parsed = []
    for text in models:
        name, *items = text.split(",")
        parsed.append((name, {k: ast.literal_eval(v) for k, v in (item.split("=") for item in items)}))
    steps = [create_steps(name, args, batch_size, device) for name, args in parsed]
    times: list[dict[str, list[float]]] = [{"forward": [], "train": []} for _ in steps]
    for number in range(rounds + 1):
        for step, taken in zip(steps, times, strict=True):
            for kind, function in step.items():
                value = seconds(function, device)
                if number:  # the first round warms up
                    taken[kind].append(value)
    speed = [{kind: batch_size / statistics.median(values) for kind, values in taken.items()} for taken in times]
    print(f"{'model':<64}{'M':>7}{'G':>7}{'forward':>10}{'':>7}{'train':>10}")
    for text, (name, args), row in zip(models, parsed, speed, strict=True):
        summary = summarize(name, **args)
        ratios = (f"{row[kind]:>10.1f} {row[kind] / speed[0][kind]:>5.2f}x" for kind in ("forward", "train"))
        print(f"{text:<64}{summary.parameters / 1e6:>7.2f}{summary.macs / 1e9:>7.2f}" + "".join(ratios))


if __name__ == "__main__":
    main()
