"""Moving MNIST, made from real digits as the field makes it (Srivastava et al., ICML 2015; PLA-SM, Section IV-A).

Two digits of 28x28 pixels start at random positions of a 64x64 frame and move along straight lines, a tenth of the free
range a step; at an edge they stop and turn back; where they overlap the brighter pixel shows.

Shapes: B clips, D = 2 digits, T frames, S = 64 pixels, 28 pixels a digit.
"""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from .clips import StreamClips
from .counter_hash import counter_hash, uniform_below
from .datasets import register_dataset
from .frames import FrameFormat
from .mnist import Split, load_digits
from .npy import ArrayStream, load_array

FRAME_SIZE, DIGIT_SIZE, NUM_DIGITS = 64, 28, 2
FREE_RANGE = FRAME_SIZE - DIGIT_SIZE
PUBLISHED_FRAMES = 20
"""Frames of a clip in the public test file."""
STEP = 0.1
"""Step length of a digit, in units of the free range."""

# Positions and velocities are integers, in units of the free range / 2^24, directions come from a table: no device's
# sine or rounding can move a digit.
ONE = 1 << 24
NUM_DIRECTIONS = 1 << 16

_PUBLIC_TEST_FILE = "mnist_test_seq.npy"
_SPLITS = {"train": 0, "val": 1, "test": 2}


@cache
def _velocities(device: torch.device) -> Tensor:
    """int64, (NUM_DIRECTIONS, 2), kept on the device: the step (down, right) for each direction.

    The sine is computed in float64 and rounded to an integer; no value lies so near to a half that the last bit of
    a mathematical library could change it (tested).
    """
    angles = (2 * math.pi * index / NUM_DIRECTIONS for index in range(NUM_DIRECTIONS))
    steps = [[round(STEP * ONE * math.sin(a)), round(STEP * ONE * math.cos(a))] for a in angles]
    return torch.tensor(steps, device=device)


def trajectories(start: Tensor, velocity: Tensor, num_frames: int) -> Tensor:
    """Where a digit is after steps 1 to T along one axis, if it stops at each edge and turns back.

    The field's generators do this step by step (``x += v; if x >= 1: x, v = 1, -v``, the same at 0). From its first
    stop on the motion is periodic, so that each step has a closed form.

    Args:
        start: int64, (...), in [0, ONE).
        velocity: int64, (...), of magnitude below ONE.
        num_frames: T.

    Returns:
        int64, (..., T), in [0, ONE].
    """
    steps = torch.arange(1, num_frames + 1, device=start.device)
    speed = velocity.abs().unsqueeze(-1)
    mirrored = (velocity < 0).unsqueeze(-1)
    position = torch.where(mirrored, ONE - start.unsqueeze(-1), start.unsqueeze(-1))
    divisor = speed.clamp(min=1)
    # Seen so that it moves up: the first step that reaches ONE, and the number of steps from edge to edge.
    first_stop = ((ONE - position + divisor - 1) // divisor).clamp(min=1)
    crossing = (ONE + divisor - 1) // divisor
    phase = (steps - first_stop) % (2 * crossing)
    bouncing = torch.where(phase <= crossing, (ONE - phase * speed).clamp(min=0), (phase - crossing) * speed)
    stopped_before = (steps >= first_stop) & (speed > 0)
    position = torch.where(stopped_before, bouncing, position + steps * speed)
    return torch.where(mirrored, ONE - position, position)


def moving_mnist_clips(
    digits: Tensor, split: Split, index: Tensor, *, seed: int = 0, epoch: int = 0, num_frames: int = 20
) -> Tensor:
    """Make clips: a batch at a time, without a loop over clips or frames, on the device of ``digits``.

    A clip is a function of (digits, seed, split, epoch, index): the same on every device and in any batch.

    Args:
        digits: uint8, (n, 28, 28).
        split: Keeps the numbers of the splits apart.
        index: int64, (B,), which clips of the split, on any device.
        seed: Of the whole data set.
        epoch: Pass over the data set.
        num_frames: T.

    Returns:
        uint8, (B, T, 64, 64).
    """
    index = index.to(digits.device, non_blocking=True)
    number, draw = (torch.arange(count, device=digits.device) for count in (NUM_DIGITS, 4))
    draws = counter_hash(seed, _SPLITS[split], epoch, index[:, None, None], number[:, None], draw).unbind(-1)  # (B, D)
    digit = uniform_below(draws[0], len(digits))
    velocity = _velocities(digits.device)[uniform_below(draws[1], NUM_DIRECTIONS)]  # (B, D, 2)
    start = uniform_below(torch.stack(draws[2:], -1), ONE)
    top, left = ((trajectories(start, velocity, num_frames) * FREE_RANGE) >> 24).unbind(2)  # (B, D, T) each

    # With free space around it, a digit anywhere in the frame is a 64x64 window of one array, and a row of that window
    # is 64 bytes in a row: all rows of the batch are picked at once, by where they start.
    padded = F.pad(digits[digit], (FREE_RANGE,) * 4)  # (B, D, side, side)
    side = padded.shape[-1]
    position = torch.arange(digit.numel(), device=digits.device).view(*digit.shape, 1)
    corner = (position * side + FREE_RANGE - top) * side + FREE_RANGE - left  # (B, D, T)
    rows = corner.transpose(0, 1).unsqueeze(-1) + side * torch.arange(FRAME_SIZE, device=digits.device)
    starts = padded.flatten().as_strided((padded.numel() - FRAME_SIZE + 1, FRAME_SIZE), (1, 1))
    layers = starts.index_select(0, rows.flatten()).view(*rows.shape, FRAME_SIZE)  # (D, B, T, 64, 64)
    return torch.maximum(*layers)


class MovingMNIST(Dataset[Tensor]):
    """Moving MNIST over real digits: (T, 1, 64, 64) clips of floats in [0, 1].

    Training clips are endless: ``set_epoch`` gives new ones. The evaluation set is the 10,000 clips of split "test"
    under seed 0 and epoch 0 (the paper says 5,000; the public test file has 10,000); its sha256 is tested and never
    changes.

    Args:
        digits: uint8, (n, 28, 28), from ``load_digits``.
        split: "train", "val" or "test".
        num_clips: Clips an epoch.
        num_frames: T input and T' output frames together.
        seed: Of the data set.
    """

    def __init__(
        self, digits: Tensor, split: Split, num_clips: int = 10_000, num_frames: int = 20, seed: int = 0
    ) -> None:
        self.digits, self.split, self.num_clips, self.num_frames, self.seed = digits, split, num_clips, num_frames, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the clips of another pass."""
        self.epoch = epoch

    def to(self, device: torch.device | str) -> "MovingMNIST":
        """Make the clips on another device from now on: the very same ones."""
        self.digits = self.digits.to(device)
        return self

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, index: int) -> Tensor:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Tensor]:
        """Make clips at once, as a list, which is what torch's loader asks for where this is there."""
        if wrong := [index for index in indices if not 0 <= index < self.num_clips]:
            raise IndexError(f"clip {wrong[0]} of {self.num_clips}")
        return list(self.get_batch(indices))

    def get_batch(self, indices: Sequence[int]) -> Tensor:
        """Make a batch at once, (B, T, 1, 64, 64), which the trainer asks for where this is there."""
        clips = moving_mnist_clips(
            self.digits, self.split, torch.as_tensor(indices), seed=self.seed, epoch=self.epoch,
            num_frames=self.num_frames,
        )  # fmt: skip
        return clips.unsqueeze(2).float().div_(255)


@register_dataset("mmnist")
def _mmnist(root: Path, split: Split, *, num_clips: int, num_frames: int, seed: int) -> Dataset[Tensor]:
    # Evaluation clips never depend on the run.
    return MovingMNIST(load_digits(root, split), split, num_clips, num_frames, seed if split == "train" else 0)


@register_dataset("mmnist_public")
def _mmnist_public(
    root: Path, split: Split, *, num_clips: int, num_frames: int, seed: int, frames_axis: int | None = None
) -> Dataset[Tensor]:
    """The public test file for testing; clips made from the digits for all else, as its users do."""
    if split != "test":
        return _mmnist(root, split, num_clips=num_clips, num_frames=num_frames, seed=seed)
    file = root / _PUBLIC_TEST_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"{root} holds no {_PUBLIC_TEST_FILE}; get it from https://www.cs.toronto.edu/~nitish/unsupervised_video/"
        )
    layout, shape = _public_layout(file, num_frames, frames_axis)
    streams = [ArrayStream(file, None, layout, shape, clip) for clip in range(shape[layout.index("b")])]
    return StreamClips(streams, [(clip, 0) for clip in range(len(streams))], num_frames, FrameFormat(1))


def _public_layout(file: Path, num_frames: int, frames_axis: int | None) -> tuple[str, tuple[int, ...]]:
    """Layout and shape of the public test file, whose clips have so many frames at least.

    It is (20, n, H, W); other copies of it are (n, 20, H, W), or have an axis of one channel besides.
    """
    array = load_array(file)
    shape = array.shape
    images = "hw" if array.ndim == 4 else "_hw" if shape[2:3] == (1,) else "hw_"
    if array.dtype != np.uint8 or array.ndim not in (4, 5) or (array.ndim == 5 and 1 not in (shape[2], shape[4])):
        raise ValueError(f"{file} should be a uint8 array of (T, n, H, W), got {array.dtype}, {shape}")
    axis = _frames_axis(file, shape, num_frames) if frames_axis is None else frames_axis
    if axis not in (0, 1):
        raise ValueError(f"frames_axis is 0 or 1, got {axis!r}")
    count, length = shape[1 - axis], shape[axis]
    if not array.size or length < num_frames:
        raise ValueError(f"{file} holds {count} clips of {length} frames, wanted {num_frames} frames or more")
    return ("bt" if axis else "tb") + images, shape


def _frames_axis(file: Path, shape: tuple[int, ...], num_frames: int) -> int:
    """Which of the first two axes has as many entries as a clip has frames, in the field's file or of this shape."""
    known = (PUBLISHED_FRAMES, num_frames)
    axes = [axis for axis, size in enumerate(shape[:2]) if size in known]
    if len(axes) != 1:
        why = "either could" if axes else "none of them can"
        lengths = " or ".join(map(str, dict.fromkeys(known)))
        raise ValueError(
            f"{file} begins with axes of {shape[0]} and {shape[1]}: {why} be the {lengths} frames of a "
            f"clip; say which it is: frames_axis=0 (the public file) or frames_axis=1 (clips first)"
        )
    return axes[0]
