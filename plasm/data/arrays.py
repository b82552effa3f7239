"""A user's clips as one tensor: from a video, GIF, folder of images, or array file."""

import logging
from pathlib import Path

import torch
from torch import Tensor

from .frames import FrameFormat, nearly_black
from .layouts import ArrayOptions
from .limits import check_bytes
from .sources import open_source
from .streams import FrameStream

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

    Raises:
        FileTooLargeError: If they would take more memory than the limit.
        ValueError: If they are not equally long, or cannot be read.
    """
    counts = [-(-stream.num_frames // step) for stream in streams]
    counts = counts if limit is None else [min(count, limit) for count in counts]
    if other := next((stream for stream, count in zip(streams, counts, strict=True) if count != counts[0]), None):
        raise ValueError(
            f"{streams[0].name} has {streams[0].num_frames} frames and {other.name} {other.num_frames}, but clips that "
            f"are read together are equally long"
        )
    height, width = frame_format.size or streams[0].size
    needed = 4 * len(streams) * counts[0] * frame_format.channels * height * width
    check_bytes(needed, streams[0].name, f"{len(streams):,} clip(s) of {counts[0]:,} frames of {width}x{height}")
    pixels = torch.stack([stream.read_as(frame_format, 0, counts[0], step) for stream in streams])
    if frame_format.value_range is None and (hint := nearly_black(pixels)):
        _LOG.warning("%s %s", streams[0].name, hint)
    return pixels
