"""A user's clips as one tensor: from a video, GIF, folder of images, or array file."""

import logging
from pathlib import Path

import torch
from torch import Tensor

from .frames import FrameFormat, nearly_black
from .layouts import ArrayOptions
from .sources import open_source
from .streams import FrameStream

__all__ = ["read_clips", "read_streams"]

_LOG = logging.getLogger(__name__)


def read_clips(
    file: Path,
    channels: int,
    *,
    value_range: tuple[float, float] | None = None,
    axes: str | None = None,
    array: str | None = None,
    fill: float | None = None,
) -> Tensor:
    """Read all frames of the clips in a file.

    Args:
        file: Anything PyAV decodes, a TIFF, a folder of images, or an array (.npy, .npz, HDF5, NetCDF) of (T, H, W),
            (T, C, H, W), (T, H, W, C), (B, T, C, H, W) or (B, T, H, W, C).
        channels: C.
        value_range: The values that become 0 and 1; see ``FrameFormat``.
        axes: What each axis of an array or TIFF is; see ``ArrayOptions``.
        array: Its name, of several in a file.
        fill: What is taken for values that are missing.

    Returns:
        (B, T, C, H, W), floats in [0, 1].

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read.
    """
    options = ArrayOptions(axes, array, fill)
    return read_streams(open_source(file, channels, options), FrameFormat(channels, value_range=value_range))


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
    pixels = torch.stack(clips)
    if frame_format.value_range is None and (hint := nearly_black(pixels)):
        _LOG.warning("%s %s", streams[0].name, hint)
    return pixels
