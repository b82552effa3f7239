"""Clip data sets: each gives (T + T', C, H, W) floats in [0, 1]."""

from .arrays import read_clips
from .datasets import create_dataset, list_datasets
from .masks import pixel_mask
from .mnist import SAMPLES, load_digits
from .moving_mnist import ClipArray, MovingMNIST, moving_mnist_clips

__all__ = [
    "SAMPLES",
    "ClipArray",
    "MovingMNIST",
    "create_dataset",
    "list_datasets",
    "load_digits",
    "moving_mnist_clips",
    "pixel_mask",
    "read_clips",
]
