# %% [markdown]
# # Fine-tune on your own clips
#
# A folder of videos or arrays is a data set. Here the clips are made up, and are in colour: a square that moves.

# %%
from pathlib import Path

import numpy as np

Path("squares").mkdir()
rng = np.random.default_rng(0)
for number in range(12):
    clip = np.zeros((20, 32, 32, 3), np.uint8)
    x, y = rng.integers(0, 12, 2)
    for frame in range(20):
        clip[frame, y : y + 8, x + frame // 2 : x + frame // 2 + 8] = rng.integers(100, 255, 3) if frame == 0 else 200
    np.save(f"squares/{number:02}.npy", clip)

# %% [markdown]
# The published weights are of a model for gray frames. Given `in_chans=3` they are adapted: the first convolution as timm
# does it, the output layer by plasm's own rule. A few steps on a laptop show that everything works; a real run needs
# more of both clips and epochs.

# %%
# !plasm train --model plasm_mmnist_tiny --model-arg in_chans=3 --init plasm_mmnist_tiny --data clips --data-dir squares --lr 0.001 --batch-size 4 --epochs 1 --clips-per-epoch 8 --val-clips 2 --out runs/squares

# %% [markdown]
# The run's folder holds the weights, the log, the curves and a report. It loads like any other weights, in commands and
# in Python.

# %%
# !plasm evaluate --weights runs/squares --data clips --data-dir squares

# %%
import timm
import torch

import plasm  # registers the models

model = timm.create_model("local-dir:runs/squares", pretrained=True).eval()
clip = torch.from_numpy(np.load("squares/00.npy")[:10]).permute(0, 3, 1, 2)[None] / 255
model.predict(clip, num_frames=10).shape
