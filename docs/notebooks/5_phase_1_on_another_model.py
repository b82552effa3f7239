# %% [markdown]
# # Phase 1 on another model
#
# Masked pretraining is not tied to PLA-SM (Table VII of the paper pretrains other models with it). It takes any encoder
# of frames, which says how many features it gives, and any decoder.

# %%
import torch
from torch import nn

from plasm.models import MaskedAutoencoder


class Encoder(nn.Module):
    """A plain encoder: (N, C, H, W) and a mask of what is visible -> (N, num_features, h, w)."""

    num_features = 32

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, stride=2, padding=1), nn.GELU(), nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.GELU()
        )

    def forward(self, frames, visible=None):
        return self.layers(frames if visible is None else frames * visible)


class Decoder(nn.Sequential):
    """(N, num_features, h, w) -> (N, C, H, W)."""

    def __init__(self):
        super().__init__(
            nn.ConvTranspose2d(32, 32, 4, stride=2, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1),
        )


encoder, decoder = Encoder(), Decoder()
autoencoder = MaskedAutoencoder(encoder, decoder, mask_ratio=0.9)

# %% [markdown]
# The loss is the squared error to the clip before masking (Eq. 4).

# %%
from plasm.data import SAMPLES, read_clips

clips = read_clips(SAMPLES / "clips.npz", channels=1)[:4]  # (4, 20, 1, 64, 64)
optimizer = torch.optim.Adam(autoencoder.parameters(), lr=2e-3)
for step in range(10):
    loss = nn.functional.mse_loss(autoencoder(clips[:, :10]), clips[:, :10])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 5 == 4:
        print(step + 1, round(loss.item(), 4))

# %% [markdown]
# Encoder and decoder are your own modules; what they have learned is in them. Spatial Masking is dropped.

# %%
features = encoder(clips[0])
features.shape

# %% [markdown]
# From the command line, `plasm pretrain --model MODULE:NAME` does the same for a registered model that has an `encoder`
# and a `decoder`: see [your own model](../own.md).
