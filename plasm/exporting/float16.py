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
    """Scale the Translator's weights in place, so that its features of some clips do not exceed ``PEAK``.

    These are what its blocks add up, what their depthwise convolutions make of it, and what the Decoder's first
    convolution does. Encoder, bottlenecks and the Decoder's later blocks stay as they are. So do other models, a PLA-SM
    of another attention, score or block than the default, and one whose convolutions are wrapped or parametrized. To
    train on, take the weights as they were: a rate suits their size.

    Args:
        model: In float32.
        clips: (B, T, C, H, W).

    Raises:
        ValueError: If its features are not finite already.
    """
    if not isinstance(model, PLASM) or not _suits(model):
        return
    peaks = _peaks(model, clips)
    if not all(map(math.isfinite, peaks.values())):
        raise ValueError("the model's features of these clips are not finite; if it is in float16, begin with float32")

    def power(*modules: nn.Module) -> float:
        """The power of two, at most 1, that brings the outputs of modules within ``PEAK``."""
        largest = max(peaks[module] for module in modules)
        return 2.0 ** min(0, math.floor(math.log2(PEAK / max(largest, 1.0))))

    translator: Any = model.translator
    blocks, pla = list(translator.convnext), list(translator.pla)
    # All that the ConvNeXt blocks add up has one scale; the outputs of each PLA block, which add nothing, have their
    # own. So has what a norm follows: small features must not fall below its epsilon with other blocks' large ones.
    low = power(
        translator.in_proj, *blocks, *(block.pwconv2 for block in blocks), *(layer.query for layer in pla),
        *_inside(pla[0]),
    )  # fmt: skip
    _scale(translator.in_proj, 1, low)
    for block in blocks:
        _scale(block.dwconv, low, power(block.dwconv))
        _scale(block.pwconv2, 1, low)
    high = low
    for layer, following in zip(pla, [*pla[1:], None], strict=True):
        layer.query.bias.mul_(low)
        layer.key.bias.mul_(high)
        block, conv = layer.value
        _scale(block.dwconv, high, power(block.dwconv))
        _scale(block.pwconv2, 1, high)
        after = power(conv, *(_inside(following) if following else ()))
        _scale(conv, high, after)
        high = after
    decoder: Any = model.decoder
    out, first = power(translator.out_proj), decoder.blocks[0].conv
    _scale(translator.out_proj, high, out)
    _scale(first, out, power(first))


def _suits(model: PLASM) -> bool:
    """Whether nothing but norms and cosines stands behind the features, and the weights are the convolutions' own."""
    translator, first = model.translator, model.decoder.blocks[0]
    layers: list[Any] = list(translator.pla)
    blocks: list[Any] = [*translator.convnext, *(layer.value[0] for layer in layers)]
    if any((layer.attention, layer.score, layer.residual) != ("global", "cosine", False) for layer in layers):
        return False
    if not all(type(block) is ConvNeXtBlock for block in blocks):
        return False
    if model.skip and len(model.decoder.blocks) == 1:
        # The skip is added to what is scaled.
        return False
    scaled: list[Any] = [translator.in_proj, translator.out_proj, first.conv]
    scaled += [conv for block in blocks for conv in (block.dwconv, block.pwconv2)]
    scaled += [conv for layer in layers for conv in (layer.query, layer.key, layer.value[1])]
    # A parametrization changes the type, pruning moves the parameter.
    return all(
        type(conv) in (nn.Conv2d, nn.ConvTranspose2d) and {"weight", "bias"} <= conv._parameters.keys()
        for conv in scaled
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
