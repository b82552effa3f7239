"""Clip data sets: each gives (T + T', C, H, W) floats in [0, 1]."""

from .arrays import read_clips, read_streams
from .clips import StreamClips
from .datasets import create_dataset, list_datasets, register_dataset
from .frames import Fit, FrameFormat
from .masks import pixel_mask
from .mnist import SAMPLES, load_digits
from .moving_mnist import ClipArray, MovingMNIST, moving_mnist_clips
from .sources import open_source
from .streams import FrameStream

__all__ = [
    "SAMPLES",
    "ClipArray",
    "Fit",
    "FrameFormat",
    "FrameStream",
    "MovingMNIST",
    "StreamClips",
    "create_dataset",
    "list_datasets",
    "load_digits",
    "moving_mnist_clips",
    "open_source",
    "pixel_mask",
    "read_clips",
    "read_streams",
    "register_dataset",
]
