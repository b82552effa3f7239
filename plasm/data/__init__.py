"""Clip data sets: each gives (T + T', C, H, W) floats in [0, 1]."""

from . import radar
from .arrays import read_clips, read_streams
from .batches import GREATEST_PIXEL, clip_batches, first_clip, weighed_batches
from .clips import StreamClips, clips
from .datasets import GIVEN_BY_COMMANDS, count_clips, create_dataset, list_datasets, register_dataset
from .fingerprint import fingerprint
from .frames import Fit, FrameFormat
from .human36m import human36m
from .kitticaltech import kitticaltech
from .kth import kth, prepare_kth
from .masks import pixel_mask
from .mnist import SAMPLES, load_digits
from .moving_mnist import MovingMNIST, moving_mnist_clips
from .sources import OnError, open_source
from .streams import FrameStream
from .taxibj import taxibj

__all__ = [
    "GIVEN_BY_COMMANDS",
    "GREATEST_PIXEL",
    "SAMPLES",
    "Fit",
    "FrameFormat",
    "FrameStream",
    "MovingMNIST",
    "OnError",
    "StreamClips",
    "clip_batches",
    "clips",
    "count_clips",
    "create_dataset",
    "fingerprint",
    "first_clip",
    "human36m",
    "kitticaltech",
    "kth",
    "list_datasets",
    "load_digits",
    "moving_mnist_clips",
    "open_source",
    "pixel_mask",
    "prepare_kth",
    "radar",
    "read_clips",
    "read_streams",
    "register_dataset",
    "taxibj",
    "weighed_batches",
]
