"""What half precision and int8 cost a forecast: ONNX files of one model in each, on the same test clips.

Usage: python benchmarks/precision.py WEIGHTS --data-dir DIR --num-clips 500 --csv docs/results/precision.csv

WEIGHTS as --weights of `plasm export`, of a model of Moving MNIST. int8 is onnxruntime's: "dynamic" chooses the scales
of the activations clip by clip, "static" from 32 validation clips.
"""

import csv
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
    shape_inference,
)

import plasm
from plasm.data import create_dataset
from plasm.evaluation import frame_mse
from plasm.files import atomic_write, check_writable
from plasm.models import frame_counts, load_model

BATCH = 8


class Calibration(CalibrationDataReader):
    """Clips for the static scales."""

    def __init__(self, clips: npt.NDArray[np.float32]) -> None:
        self.batches = iter(np.split(clips, len(clips) // BATCH))

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        """The next batch, or None."""
        clip = next(self.batches, None)
        return None if clip is None else {"clip": clip}


def files(model: Any, calibration: npt.NDArray[np.float32], folder: Path) -> Iterator[tuple[str, Path]]:
    """Write the model in every precision: names and files."""
    whole, half, ready = folder / "float32.onnx", folder / "float16.onnx", folder / "ready.onnx"
    plasm.export(model, whole)
    yield "float32", whole
    plasm.export(model, half, half=True)
    yield "float16", half
    shape_inference.quant_pre_process(whole, ready, skip_symbolic_shape=True)
    # onnxruntime has no convolution of signed weights with scales chosen on the way.
    quantize_dynamic(ready, folder / "dynamic.onnx", weight_type=QuantType.QUInt8)
    yield "int8, dynamic", folder / "dynamic.onnx"
    quantize_static(
        ready, folder / "static.onnx", Calibration(calibration), quant_format=QuantFormat.QDQ, per_channel=True,
        weight_type=QuantType.QInt8,
    )  # fmt: skip
    yield "int8, static", folder / "static.onnx"


def error(file: Path, clips: npt.NDArray[np.float32], in_frames: int) -> float:
    """MSE, summed over the pixels of a frame, as `plasm evaluate` has it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    total = 0.0
    for start in range(0, len(clips), BATCH):
        clip = clips[start : start + BATCH]
        frames = torch.from_numpy(session.run(["frames"], {"clip": clip[:, :in_frames]})[0]).float()
        total += frame_mse(frames, torch.from_numpy(clip[:, in_frames:])).mean(1).sum().item()
    return total / len(clips)


@click.command()
@click.argument("source", metavar="WEIGHTS")
@click.option("--data-dir", required=True, type=Path, help="Folder of the digits' files.")
@click.option("--num-clips", default=500, show_default=True)
@click.option("--csv", "table", type=click.Path(path_type=Path), help="Write the table here, too.")
def main(source: str, data_dir: Path, num_clips: int, table: Path | None) -> None:
    """Print size and MSE of each precision."""
    logging.disable(logging.WARNING)
    if table:
        # What follows takes minutes.
        check_writable(table)
    model = load_model(None, source).eval()
    in_frames, out_frames = frame_counts(model)

    def clips(split: Any, count: int) -> npt.NDArray[np.float32]:
        dataset: Any = create_dataset("mmnist", data_dir, split, num_frames=in_frames + out_frames)
        return torch.stack([dataset[index] for index in range(count)]).numpy()

    test = clips("test", num_clips)
    rows: list[tuple[str, int, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, file in files(model, clips("val", 4 * BATCH)[:, :in_frames], Path(folder)):
            rows.append((name, file.stat().st_size, error(file, test, in_frames)))
            click.echo(f"{name:14s} {rows[-1][1] / 1e6:5.1f} MB   MSE {rows[-1][2]:.3f}")
    if table:
        table.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(table) as beside, beside.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("weights", "clips", "precision", "bytes", "mse"))
            writer.writerows((source, num_clips, name, size, f"{mse:.4f}") for name, size, mse in rows)


if __name__ == "__main__":
    main()
