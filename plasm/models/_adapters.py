"""Layers of pretrained weights for other numbers of frames and channels.

``Family.adapters`` says which.

Shapes: T input frames, T' output frames, C channels, D features of a frame, K features in or out of the layer that is
adapted, G groups of C channels, channels innermost: the pixels of a patch, those of several frames, or 1.
"""

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange, repeat
from timm.models import adapt_input_conv
from torch import Tensor

Adapter = Callable[[Tensor, Any], Tensor]
"""Maps a tensor of a checkpoint and the model that is to take it to the tensor in the model's shape."""


def adapt_in_frames(weight: Tensor, in_frames: int, channels: int) -> Tensor:
    """Make the layer that joins T input frames take another number of them.

    For fewer, the frames that fall away, the oldest, count as a repetition of the oldest left: their weights are added
    to its own. Without training on, that is better than leaving them out with some weights, and worse with others.
    For more, the last T are seen as before and those before them not at all, with zeros: the forecast is then the old
    one.

    Args:
        weight: (K, T * D, 1, 1), frames outermost.
        in_frames: T of the new model.
        channels: D.
    """
    frames = rearrange(weight, "o (t c) h w -> t o c h w", c=channels)
    missing = in_frames - len(frames)
    if missing >= 0:
        frames = torch.cat([frames.new_zeros(missing, *frames.shape[1:]), frames])
    else:
        frames = torch.cat([frames[: 1 - missing].sum(0, keepdim=True), frames[1 - missing :]])
    return rearrange(frames, "t o c h w -> o (t c) h w")


def adapt_out_frames(tensor: Tensor, out_frames: int, channels: int) -> Tensor:
    """Make the layer that gives T' output frames give another number of them.

    For fewer, the first of them are kept. For more, the last is repeated: the forecast stands still after T'.

    Args:
        tensor: Weight (T' * D, K, 1, 1) or bias (T' * D), frames outermost.
        out_frames: T' of the new model.
        channels: D.
    """
    frames = rearrange(tensor, "(t c) ... -> t c ...", c=channels)
    more = repeat(frames[-1], "... -> t ...", t=max(0, out_frames - len(frames)))
    return rearrange(torch.cat([frames[:out_frames], more]), "t c ... -> (t c) ...")


def adapt_in_channels(weight: Tensor, in_chans: int, groups: int = 1) -> Tensor:
    """Make the layer that sees images, or patches of them, take another number of channels, as timm does.

    For one, the weights of all are added up; else they are repeated and scaled, so that the same image in all channels
    gives what it gave before, where the old number divides the new one (one channel, say).

    Args:
        weight: (K, G * C, ...).
        in_chans: C of the new model.
        groups: G.
    """
    parts = rearrange(weight, "o (g c) ... -> (o g) c ...", g=groups)
    adapted = adapt_input_conv(in_chans, parts.reshape(*parts.shape[:2], -1, 1), base_chans=parts.shape[1])
    return rearrange(adapted.reshape(len(parts), in_chans, *weight.shape[2:]), "(o g) c ... -> o (g c) ...", g=groups)


def adapt_out_channels(tensor: Tensor, out_chans: int, groups: int = 1) -> Tensor:
    """Make the layer that gives images, or patches of them, give another number of channels.

    Each new one starts as the mean of the old.

    Args:
        tensor: Weight (G * C, ...) or bias (G * C).
        out_chans: C of the new model.
        groups: G.
    """
    means = rearrange(tensor, "(g c) ... -> g c ...", g=groups).mean(1)
    return repeat(means, "g ... -> (g c) ...", c=out_chans)
