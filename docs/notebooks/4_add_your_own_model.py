# %% [markdown]
# # Add your own model to the zoo
#
# A model is an `nn.Module` that maps (batch, frames, channels, height, width) to the frames that follow, and a
# constructor registered with timm. It stands in a module of its own, where commands find it too.

# %%
from pathlib import Path

Path("my_net.py").write_text(
    '''
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn


class MyNet(nn.Module):
    """Three convolutions over all frames at once."""

    def __init__(self, in_chans=1, in_frames=10, out_frames=10, dim=16):
        super().__init__()
        self.in_chans, self.in_frames, self.out_frames = in_chans, in_frames, out_frames
        self.net = nn.Sequential(
            nn.Conv2d(in_frames * in_chans, dim, 5, padding=2), nn.GELU(),
            nn.Conv2d(dim, dim, 5, padding=2), nn.GELU(),
            nn.Conv2d(dim, out_frames * in_chans, 5, padding=2),
        )

    def forward(self, clip):  # (B, T, C, H, W) -> (B, T', C, H, W)
        return self.net(clip.flatten(1, 2)).unflatten(1, (self.out_frames, self.in_chans))


default_cfgs = generate_default_cfgs({"my_net": {"input_size": (1, 64, 64)}})  # (C, H, W)


@register_model
def my_net(pretrained=False, **kwargs):
    return build_model_with_cfg(MyNet, "my_net", pretrained, kwargs_filter=("num_classes",), **kwargs)
''',
    encoding="utf-8",
)

# %% [markdown]
# `my_net:my_net` (module and constructor) now works wherever a model's name does. Moving MNIST is made from handwritten
# digits; some ship with plasm, so this needs no download. With `--fast-dev-run` the run goes through every stage and
# keeps nothing; without it, it trains.

# %%
from plasm.data import SAMPLES

digits = str(SAMPLES)

# %%
# !plasm train --model my_net:my_net --data mmnist --data-dir {digits} --lr 0.002 --epochs 1 --clips-per-epoch 32 --val-clips 8 --out runs/mine

# %% [markdown]
# `plasm evaluate` prints its errors beside those of two forecasts that need no model. After so few clips it cannot be
# expected to win.

# %%
# !plasm evaluate --weights runs/mine --model my_net:my_net --data mmnist --data-dir {digits} --num-clips 8
