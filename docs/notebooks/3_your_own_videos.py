# %% [markdown]
# # Your own videos
#
# From a folder of videos to forecasts that beat repeating the last frame. The videos here are made up: three shapes that
# turn, bounce off the borders and collide. The page [your own videos](../videos.md) says what to choose for others.
#
# The whole notebook takes a quarter of an hour of two cores: 28 minutes of CPU time. It ran here on a machine that was busy with
# other work, so the times that it prints are longer; and it began with the published weights of that time, `mmnist_v5`.
# With `PLASM_QUICK=1` in the environment it does little of everything, to see that it works.

# %%
# include: benchmarks/scene.py

# %%
import os

quick = "PLASM_QUICK" in os.environ
main(Path("videos"), 12 if quick else 100)

# %% [markdown]
# A folder of videos is a data set, `clips`. Files are held out for validation and testing by a hash of their names, whole
# files at a time. Frames are made smaller as they are read. With a stride of 1 a clip of 20 frames begins at each frame.

# %%
# !plasm data count clips --data-dir videos --num-frames 20 --data-arg stride=1 --data-arg "size=(48,64)"

# %%
from plasm.data import create_dataset
from plasm.pictures import contact_sheet

clips = create_dataset("clips", Path("videos"), "train", num_frames=20, size=(48, 64))
contact_sheet(torch.stack([clips[0], clips[len(clips) // 2]]), ["a clip", "another"])

# %% [markdown]
# Train, from the published weights of a model for gray digits: with `in_chans=3` its first and its last layer are adapted.
# The command says first how many steps there are and how long they will take. 2,000 steps are a good beginning.

# %%
epochs, clips_per_epoch = (1, 32) if quick else (5, 10_000)

# %%
# !plasm train --model plasm_mmnist_tiny --model-arg in_chans=3 --init plasm_mmnist_tiny --data clips --data-dir videos --data-arg "size=(48,64)" --data-arg stride=1 --lr 0.002 --epochs {epochs} --clips-per-epoch {clips_per_epoch} --val-clips 100 --workers 1 --out runs/shapes

# %% [markdown]
# Measure it on the test videos, which training has not seen. `last frame` is a forecast that needs no model: the last input
# frame again. A model is worth having where its MSE is well below that.

# %%
# !plasm evaluate --weights runs/shapes --data clips --data-dir videos --data-arg "size=(48,64)"

# %% [markdown]
# Look at a forecast. `plasm predict --weights runs/shapes --input FILE --size 48 64` writes such pictures, or a video with
# `--out forecast.mp4`.

# %%
import timm

import plasm  # registers the models

model = timm.create_model("local-dir:runs/shapes", pretrained=True).eval()
test = create_dataset("clips", Path("videos"), "test", num_frames=20, size=(48, 64))
clip = torch.stack([test[number] for number in range(min(3, len(test)))])
seen, truth = clip[:, :10], clip[:, 10:]
forecast, last = model.predict(seen, num_frames=10), seen[:, -1:].expand_as(truth)
rows = torch.stack([truth, forecast, last], 1).flatten(0, 1)
contact_sheet(rows, ["truth", "forecast", "last frame"] * len(clip))

# %%
(forecast - truth).square().mean().item() / (last - truth).square().mean().item()
