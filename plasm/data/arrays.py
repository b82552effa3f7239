"""A user's clips as one tensor: from a video, GIF, folder of images, or array file."""

from pathlib import Path

import torch
from torch import Tensor

from .frames import FrameFormat
from .sources import open_source
from .streams import FrameStream

__all__ = ["read_clips", "read_streams"]


def read_clips(file: Path, channels: int) -> Tensor:
    """Read all frames of the clips in a file.

    Args:
        file: Anything PyAV decodes, a folder of images, or a ``.npy``, or ``.npz`` with one array, of (T, H, W),
            (T, C, H, W), (T, H, W, C), (B, T, C, H, W) or (B, T, H, W, C).
        channels: C.

    Returns:
        (B, T, C, H, W), floats in [0, 1].

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read.
    """
    return read_streams(open_source(file, channels), FrameFormat(channels))


def read_streams(
    streams: list[FrameStream], frame_format: FrameFormat, limit: int | None = None, step: int = 1
) -> Tensor:
    """Read the first frames of streams that are equally long.

    Args:
        streams: B of them.
        frame_format: Channels and size of the result.
        limit: Frames to read at most; all by default.
        step: Frames from one to the next.

    Returns:
        (B, T, C, H, W), floats in [0, 1].
    """
    clips = []
    for stream in streams:
        count = -(-stream.num_frames // step)
        count = count if limit is None else min(count, limit)
        clips.append(frame_format(stream.read(0, count, step, gray=frame_format.channels == 1), stream.name))
    return torch.stack(clips)
