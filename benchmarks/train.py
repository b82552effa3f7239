"""What a training step costs, beside the same model run plainly, on this machine.

    python benchmarks/train.py --data-dir DIR [--model NAME] [--batch-size 16] [--rounds 3] [--profile]

Every number is a ratio of things measured in turn in one run. Each variant has a process of its own, since some of
what the trainer does (how memory is kept) holds for a whole process:

    plain    fp32, contiguous, eager, torch's own gradients, clips made one by one as the field's generators do
    fp32     the trainer with --no-bf16, on a device that has bf16
    trainer  the trainer as it is
    frozen   the trainer as it is, phase 2 with a frozen encoder
    compile  the trainer with --compile (--with-compile)
"""

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from plasm.data import create_dataset, moving_mnist_clips
from plasm.data.mnist import load_digits
from plasm.devices import choose_device, has_bf16, keep_freed_memory
from plasm.distributed import ProcessGroup
from plasm.models import create_model, summarize
from plasm.training import TrainConfig
from plasm.training.assembly import prepare

STEPS = {"cpu": 5, "cuda": 50}


def clip_by_clip(digits: np.ndarray, num_frames: int = 20) -> np.ndarray:
    """One Moving MNIST clip, (T, 1, 64, 64) floats, as the field makes it: a loop over digits and frames."""
    clip = np.zeros((num_frames, 64, 64), np.float32)
    for _ in range(2):
        digit = digits[random.randrange(len(digits))]
        y, x, angle = random.random(), random.random(), random.random() * 2 * math.pi
        dy, dx = math.sin(angle), math.cos(angle)
        for frame in range(num_frames):
            y, x = y + dy * 0.1, x + dx * 0.1
            y, dy = (0.0, -dy) if y <= 0 else (1.0, -dy) if y >= 1 else (y, dy)
            x, dx = (0.0, -dx) if x <= 0 else (1.0, -dx) if x >= 1 else (x, dx)
            top, left = int(36 * y), int(36 * x)
            window = clip[frame, top : top + 28, left : left + 28]
            np.maximum(window, digit, out=window)
    return clip[:, None] / 255


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(step: Callable[[], int], device: torch.device, steps: int) -> float:
    """Clips a second; ``step`` returns how many it handled."""
    step()
    synchronise(device)
    started = time.perf_counter()
    clips = sum(step() for _ in range(steps))
    synchronise(device)
    return clips / (time.perf_counter() - started)


def trainer_step(arguments: argparse.Namespace, variant: str, folder: str) -> Callable[[], int]:
    config = TrainConfig(
        model=arguments.model, data="mmnist", data_dir=str(arguments.data_dir), out=folder, epochs=1000,
        clips_per_epoch=10_000, batch_size=arguments.batch_size, val_clips=1, device=arguments.device,
        bf16=False if variant == "fp32" else None, compile=variant == "compile", freeze_encoder=variant == "frozen",
    )  # fmt: skip
    trainer = prepare(config, ProcessGroup(0, 1, choose_device(arguments.device)), resume=False)
    trainer.task.train()
    batches = trainer._batches()

    def step() -> int:
        trainer._train_step([next(batches)])
        return arguments.batch_size

    return step


def plain_step(arguments: argparse.Namespace) -> Callable[[], int]:
    device = choose_device(arguments.device)
    model = create_model(arguments.model).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    digits = load_digits(arguments.data_dir, "train").numpy()

    def step() -> int:
        clips = np.stack([clip_by_clip(digits) for _ in range(arguments.batch_size)])
        batch = torch.from_numpy(clips).to(device)
        loss = F.mse_loss(model(batch[:, :10]), batch[:, 10:])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return arguments.batch_size

    return step


def profile(step: Callable[[], int]) -> list[tuple[str, float]]:
    """Operators and their share of a step's time, largest first."""
    step()
    with torch.profiler.profile() as seen:
        step()
    rows = [(event.key, event.self_cpu_time_total) for event in seen.key_averages()]
    total = sum(value for _, value in rows)
    return sorted(((name, value / total) for name, value in rows), key=lambda row: -row[1])[:12]


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One variant, in this process."""
    device = choose_device(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        step = (
            plain_step(arguments)
            if arguments.variant == "plain"
            else trainer_step(arguments, arguments.variant, folder)
        )
        steps = STEPS[device.type] if arguments.variant != "plain" else 2
        result: dict[str, Any] = {"clips_per_second": rate(step, device, steps)}
        if device.type == "cuda":
            result["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
        if arguments.profile:
            result["profile"] = profile(step)
    return result


def in_turn(variants: list[str], rounds: int) -> Iterator[tuple[str, dict[str, Any]]]:
    for _ in range(rounds):
        for variant in variants:
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--variant", variant],
                stdout=subprocess.PIPE,
                text=True,
            )
            if done.returncode:
                # Its own error stands above.
                raise SystemExit(f"{variant} ended with {done.returncode}")
            yield variant, json.loads(done.stdout.splitlines()[-1])


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating point operations a second of a large matrix product."""
    size = 1024 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return rate(lambda: int(bool(len(a @ b))), device, 50) * 2 * size**3


def generators(arguments: argparse.Namespace) -> None:
    device = choose_device(arguments.device)
    keep_freed_memory(device)
    digits = load_digits(arguments.data_dir, "train")
    on_device, array = digits.to(device), digits.numpy()
    index = torch.arange(arguments.batch_size)
    one = [rate(lambda: len(clip_by_clip(array)) // 20, torch.device("cpu"), 200) for _ in range(arguments.rounds)]
    many = [
        rate(lambda: len(moving_mnist_clips(on_device, "train", index).float().div_(255)), device, 50)
        for _ in range(arguments.rounds)
    ]
    print(
        f"clips made a second: {statistics.median(many):,.0f} a batch at once on {device}, "
        f"{statistics.median(one):,.0f} one by one, {statistics.median(many) / statistics.median(one):.2g}x"
    )


def check_clips(data_dir: Path) -> None:
    """The clip-by-clip generator makes the same kind of clips, so that the comparison is fair."""
    digits = load_digits(data_dir, "train").numpy()
    bright = np.mean([clip_by_clip(digits).mean() for _ in range(200)])
    ours: Tensor = create_dataset("mmnist", data_dir, "train").get_batch(list(range(200)))  # type: ignore[attr-defined]
    assert abs(bright - ours.mean().item()) < 0.005, (bright, ours.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--model", default="plasm_mmnist_tiny")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--with-compile", action="store_true")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        print(json.dumps(measure(arguments)))
        return
    device = choose_device(arguments.device)
    check_clips(arguments.data_dir)
    generators(arguments)
    bf16 = has_bf16(device)
    variants = ["plain", *["fp32"] * bf16, "trainer", "frozen", *["compile"] * arguments.with_compile]
    kinds = {name: "bf16" if bf16 and name not in ("plain", "fp32") else "fp32" for name in variants}
    results: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
    peaks: dict[str, list[float]] = {kind: [] for kind in kinds.values()}
    for variant, result in in_turn(variants, arguments.rounds):
        results[variant].append(result)
        kind = kinds[variant]
        peaks[kind].append(matrix_peak(device, torch.float32 if kind == "fp32" else torch.bfloat16))
    rates = {variant: statistics.median(r["clips_per_second"] for r in found) for variant, found in results.items()}
    flops = 6 * summarize(arguments.model).macs
    for variant, value in rates.items():
        turns = zip(results[variant], results["plain"], strict=True)
        ratios = [ours["clips_per_second"] / plain["clips_per_second"] for ours, plain in turns]
        spread = f"({min(ratios):.2f}-{max(ratios):.2f})"
        line = f"{variant:8} {value:8.1f} clips/s  {statistics.median(ratios):5.2f}x plain {spread}"
        if variant != "frozen":
            peak = statistics.median(peaks[kinds[variant]])
            line += (
                f"  {value * flops / peak:5.1%} of the {kinds[variant]} matrix-product peak, {peak / 1e9:,.0f} GFLOP/s"
            )
        if "peak_gib" in results[variant][0]:
            line += f"  {results[variant][0]['peak_gib']:.2f} GiB"
        print(line)
    if arguments.profile:
        print("share of a step of the trainer, by operator:")
        for name, share in results["trainer"][-1]["profile"]:
            print(f"  {share:6.1%}  {name}")


if __name__ == "__main__":
    main()
