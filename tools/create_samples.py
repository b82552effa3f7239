"""Make the sample digits and clips that ship with the package, from the four MNIST files.

Usage: python tools/create_samples.py MNIST_DIR
"""

import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import torch

from plasm.data import SAMPLES, load_digits, moving_mnist_clips
from plasm.data.mnist import read_idx_images

NUM_CLIPS, NUM_TRAIN, NUM_TEST = 8, 960, 400


def main(root: Path) -> None:
    """Write the files."""
    for name, count in (("train", NUM_TRAIN), ("t10k", NUM_TEST)):
        file = f"{name}-images-idx3-ubyte.gz"
        digits = read_idx_images(root / file)[:count]
        content = struct.pack(">4i", 2051, *digits.shape) + digits.numpy().tobytes()
        (SAMPLES / file).write_bytes(gzip.compress(content, 9, mtime=0))
    clips = moving_mnist_clips(load_digits(root, "test"), "test", torch.arange(NUM_CLIPS))
    np.savez_compressed(SAMPLES / "clips.npz", clips=clips.unsqueeze(2).numpy())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
