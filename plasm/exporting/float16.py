"""Room for the features of a PLA-SM in float16.

After long training without weight decay its features between two norms reach millions, and float16 ends at 65,504.
Only their direction matters there: each path ends in a GroupNorm or in a cosine, which no scale changes but for the
norm's epsilon. So powers of two in the weights bring them down, and the forecasts stay.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from plasm.layers import ConvNeXtBlock
from plasm.models.plasm import PLASM

PEAK = 2.0**12
"""A feature's largest magnitude after scaling: that of other clips may be sixteen times as large."""


@torch.no_grad()
def make_room(model: nn.Module, clips: Tensor) -> None:
    """Scale a PLA-SM's weights in place, so that no feature of some clips exceeds ``PEAK``.

    Other models, and a PLA-SM of another attention, score or block than the default, are left as they are. To train on,
    take the weights as they were: a rate suits their size.

    Args:
        model: In float32.
        clips: (B, T, C, H, W).
    """
    if not isinstance(model, PLASM) or not _suits(model):
        return
    peaks = _peaks(model, clips)
    if not all(map(math.isfinite, peaks.values())):
        return

    def power(*modules: nn.Module, given: float = 1.0) -> float:
        """The power of two, at most 1, that brings the outputs of modules, scaled already, within ``PEAK``."""
        largest = max(peaks[module] for module in modules) * given
        return 2.0 ** min(0, math.floor(math.log2(PEAK / max(largest, 1.0))))

    translator: Any = model.translator
    blocks, pla = list(translator.convnext), list(translator.pla)
    # All that the ConvNeXt blocks add up has one scale; the outputs of each PLA block, which add nothing, their own.
    low = power(
        translator.in_proj, *blocks, *(block.pwconv2 for block in blocks), *(layer.query for layer in pla),
        *_inside(pla[0]),
    )  # fmt: skip
    _scale(translator.in_proj, 1, low)
    for block in blocks:
        _scale(block.dwconv, low, low * power(block.dwconv, given=low))
        _scale(block.pwconv2, 1, low)
    high = low
    for layer, following in zip(pla, [*pla[1:], None], strict=True):
        layer.query.bias.mul_(low)
        layer.key.bias.mul_(high)
        block, conv = layer.value
        _scale(block.dwconv, high, high * power(block.dwconv, given=high))
        _scale(block.pwconv2, 1, high)
        after = power(conv, *(_inside(following) if following else ()))
        _scale(conv, high, after)
        high = after
    decoder: Any = model.decoder
    out, first = power(translator.out_proj), decoder.blocks[0].conv
    _scale(translator.out_proj, high, out)
    _scale(first, out, out * power(first, given=out))


def _suits(model: PLASM) -> bool:
    """Whether nothing but norms and cosines stands behind the features."""
    layers: Any = model.translator.pla
    if model.skip and len(model.decoder.blocks) == 1:
        # The skip is added to what is scaled.
        return False
    return all(
        (layer.attention, layer.score, layer.residual) == ("global", "cosine", False)
        and isinstance(layer.value[0], ConvNeXtBlock)
        for layer in layers
    )


def _inside(layer: Any) -> list[nn.Module]:
    """What has the scale of a PLA block's high layer."""
    return [layer.key, layer.value[0], layer.value[0].pwconv2]


def _scale(conv: Any, inputs: float, outputs: float) -> None:
    """Let a convolution whose inputs are scaled have outputs that are."""
    conv.weight.mul_(outputs / inputs)
    conv.bias.mul_(outputs)


def _peaks(model: PLASM, clips: Tensor) -> dict[nn.Module, float]:
    """The largest magnitude that each convolution and block puts out."""
    found: dict[nn.Module, float] = {}

    def look(module: nn.Module, _: object, output: Tensor) -> None:
        found[module] = float(output.abs().max())

    hooks = [
        module.register_forward_hook(look)
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | ConvNeXtBlock)
    ]
    try:
        model(clips)
    finally:
        for hook in hooks:
            hook.remove()
    return found
