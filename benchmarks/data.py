"""Clips a second of a data set's loader, beside what training takes of them.

Usage: python benchmarks/data.py [NAME DATA_DIR] [--workers 0,2] [--clips 128] [--device cpu]

Without a folder each of the paper's data sets is measured on made-up files of its true format and frame size: noise,
which is harder to decode than what a camera sees.
"""

import itertools
import runpy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import plasm  # noqa: F401  (registers the models)
from plasm.data import create_dataset, prepare_kth
from plasm.devices import move

FILES = runpy.run_path(str(Path(__file__).parents[1] / "tests" / "data" / "video_files.py"))
MODELS = {
    "taxibj": "plasm_taxibj", "kth": "plasm_kth", "human36m": "plasm_human36m", "kitticaltech": "plasm_caltech",
}  # fmt: skip
BATCH = 16


def noise(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def create_kth(root: Path) -> None:
    for person in (1, 2, 3):
        FILES["write_video"](root / "running" / f"person0{person}_running_d1_uncomp.avi", noise(120, 120, 160))
    (root / "00sequences.txt").write_text(
        "".join(f"person0{p}_running_d1 frames 1-120\n" for p in (1, 2, 3)), encoding="utf-8"
    )
    prepare_kth(root)


def create_human36m(root: Path) -> None:
    for subject in (1, 5):
        FILES["write_images"](root / "images", noise(40, 1002, 1000), f"S{subject}_Walking.1_{{:06d}}.jpg")


def create_kitticaltech(root: Path) -> None:
    for drive in range(2):
        FILES["write_images"](root / f"drive_{drive}" / "image_03" / "data", noise(12, 375, 1242))


MAKERS: dict[str, Callable[[Path], None]] = {
    "taxibj": FILES["write_taxibj"], "kth": create_kth, "human36m": create_human36m,
    "kitticaltech": create_kitticaltech,
}  # fmt: skip


def loaded_per_second(dataset: Dataset[Tensor], clips: int, workers: int) -> float:
    """Clips a second, from the first batch on: what starting the workers takes is left out."""
    total: int = len(dataset)  # type: ignore[arg-type]
    order = list(itertools.islice(itertools.cycle(range(total)), clips + BATCH))
    batches = iter(DataLoader(dataset, BATCH, sampler=order, num_workers=workers))
    next(batches)
    started = time.perf_counter()
    count = sum(len(batch) for batch in batches)
    return count / (time.perf_counter() - started)


def trained_per_second(model: Any, size: tuple[int, ...], device: str, rounds: int) -> float:
    """Clips a second of the paper's model in its second phase, in bfloat16."""
    model = move(model, torch.device(device))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    clip = torch.rand(BATCH, model.in_frames, *size, device=device)
    target = torch.rand(BATCH, model.out_frames, *size, device=device)
    started = 0.0
    for number in range(rounds + 1):
        with torch.autocast(device, torch.bfloat16):
            out = model(clip)
        F.mse_loss(out.float(), target).backward()
        optimizer.step()
        optimizer.zero_grad()
        if number == 0:
            if device == "cuda":
                torch.cuda.synchronize()
            started = time.perf_counter()
    if device == "cuda":
        torch.cuda.synchronize()
    return rounds * BATCH / (time.perf_counter() - started)


@click.command()
@click.argument("name", required=False, type=click.Choice(list(MODELS)))
@click.argument("root", required=False, type=Path)
@click.option("--workers", default="0,2", help="Numbers of worker processes to try.")
@click.option("--clips", default=128)
@click.option("--rounds", default=2, help="Training steps to time.")
@click.option("--device", default="cpu")
def main(name: str | None, root: Path | None, workers: str, clips: int, rounds: int, device: str) -> None:
    tries = [int(number) for number in workers.split(",")]
    titles = "".join(f"{f'{number} workers':>12}" for number in tries)
    click.echo(f"{'clips a second':<16}{titles}{f'training, {device}':>18}")
    for each in [name] if name else MODELS:
        with tempfile.TemporaryDirectory() as folder:
            if root is None:
                MAKERS[each](Path(folder))
            model = timm.create_model(MODELS[each])
            num_frames = model.in_frames + model.out_frames
            options = {"val_days": 4} if root is None and each == "taxibj" else {}
            dataset = create_dataset(each, root or Path(folder), "train", num_frames=num_frames, **options)
            rates = "".join(f"{loaded_per_second(dataset, clips, number):>12.0f}" for number in tries)
            size = tuple(dataset[0].shape[1:])
            click.echo(f"{each:<16}{rates}{trained_per_second(model, size, device, rounds):>18.1f}")


if __name__ == "__main__":
    main()
