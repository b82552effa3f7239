# %% [markdown]
# # Predict your own clip
#
# Load a model with weights, give it the first ten frames of a clip, and look at what it expects to follow.

# %%
import numpy as np
import torch
from PIL import Image

import plasm
from plasm.data import SAMPLES, read_clips
from plasm.pictures import strip

model = plasm.create_model("plasm_mmnist_tiny", pretrained=True).eval()
model.in_frames, model.in_chans

# %% [markdown]
# `read_clips` reads videos, GIFs, folders of images and arrays, and gives (batch, frames, channels, height, width) in
# [0, 1]. Put the name of your own file in place of the sample clips. Videos need `pip install "plasm-video[cli,video]"`.

# %%
clips = read_clips(SAMPLES / "clips.npz", channels=1)[:2]
seen, truth = clips[:, :10], clips[:, 10:]
seen.shape

# %%
forecast = model.predict(seen, num_frames=10)
strip(seen, forecast, truth)

# %% [markdown]
# A horizon longer than the model's own works too: it feeds its own last frames back. Errors add up, so the frames get
# blurred.

# %%
long = model.predict(seen, num_frames=15)
strip(seen, long)

# %% [markdown]
# Save it as an array, or as an animation.

# %%
np.save("forecast.npy", forecast.numpy())
frames = [Image.fromarray((frame.clamp(0, 1) * 255).byte().numpy()[0]) for frame in torch.cat([seen, forecast], 1)[0]]
frames[0].save("forecast.gif", save_all=True, append_images=frames[1:], duration=200, loop=0)
