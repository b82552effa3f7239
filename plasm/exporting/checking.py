"""Comparison of exported files with eager, on real clips, in each engine.

Shapes: B clips, T input frames, C channels, H x W pixels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .engines import Engine, load_exported

TOLERANCE = 1e-3
"""The largest difference of a file from eager, relative to the range of the output."""


class ExportError(ValueError):
    """The exported file does not reproduce the output of the model."""


def sample_clips(model: Any, size: tuple[int, int]) -> Tensor:
    """Real clips of the package, (3, T, C, H, W), made to fit a model.

    They are brought to the size, and played to and fro; of several channels each shows them shifted.
    """
    from plasm.data import SAMPLES, read_clips

    clips = read_clips(SAMPLES / "clips.npz", 1)[:3]
    frames = F.interpolate(clips.flatten(0, 1), size, mode="bilinear", antialias=True).unflatten(0, clips.shape[:2])
    there_and_back = torch.cat([frames, frames.flip(1)], 1)
    index = torch.arange(model.in_frames) % there_and_back.shape[1]
    played = there_and_back[:, index]
    return torch.cat([played.roll(channel * (size[1] // 4), -1) for channel in range(model.in_chans)], 2).contiguous()


def check_file(
    file: Path, eager: nn.Module, checks: list[Tensor], engines: Sequence[Engine], refusal: str
) -> tuple[float, float]:
    """The largest difference of a file from eager, NaN counted as infinite, and the range of eager's output.

    Args:
        file: Of ``export``.
        eager: What it should compute.
        checks: Clips, (B, T, C, H, W) each.
        engines: That run the file; empty where it is torch.
        refusal: How the error begins.

    Raises:
        ExportError: If it is more than the tolerance in one of the engines.
    """
    expected = [eager(clip) for clip in checks]
    highest = max(frames.max().item() for frames in expected)
    spread = highest - min(frames.min().item() for frames in expected)
    largest = 0.0
    for engine in engines or (None,):
        exported = load_exported(file, engine=engine or "onnxruntime", trust=True)
        for clip, frames in zip(checks, expected, strict=True):
            difference = (exported(clip) - frames).abs().nan_to_num(float("inf")).max().item()
            if not difference <= TOLERANCE * spread:
                cure = f"; if you will not use {engine}, check it in others alone" if len(engines) > 1 else ""
                raise ExportError(
                    f"{refusal}: in {engine or 'torch'} the output of {len(clip)} clip(s) differs from eager by "
                    f"{difference:.2g}, more than {TOLERANCE:g} of its range, which is {spread:.3g}, at "
                    f"{clip.shape[-2]}x{clip.shape[-1]}{cure}"
                )
            largest = max(largest, difference)
    return largest, spread
