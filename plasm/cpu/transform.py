"""Subclasses of torch's layers that are faster on a CPU, and the transform that puts them into a model.

Only its class is another: a layer keeps its parameters, hooks, options and names. Each class is a subclass of the
ordinary one, of the same name.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

from torch import Tensor, nn

from plasm.layers import sparse

from .gradients import conv2d, group_norm
from .winograd import conv2d_5x5, is_faster, kernels_transformed_once

Model = TypeVar("Model", bound=nn.Module)


def speed_up(model: Model) -> Model:
    """Give the layers of a model faster ways on a CPU, in place. Done again, it changes nothing.

    Convolutions and GroupNorms, the sparse ones too, are given those of ``plasm.cpu.gradients`` and
    ``plasm.cpu.winograd``; subclasses of them stay as they are. The model computes the same, to rounding, and is the
    same to whoever copies, saves, exports or compiles it. On other devices, in graphs and under transforms its layers
    do what torch's do.

    Args:
        model: Any module.

    Returns:
        ``model`` itself.
    """
    module: Any
    for module in model.modules():
        faster = _FASTER.get(type(module))
        if faster is not None:
            module.__class__ = faster
        elif getattr(type(module), "unrolling", None) is nullcontext:
            module.unrolling = kernels_transformed_once
    return model


def _faster(ordinary: type[nn.Module], compute: Callable[[Any, Tensor], Tensor]) -> type[nn.Module]:
    """A subclass that computes dense frames so, and leaves whatever else it is given to the ordinary class."""

    def forward(self: nn.Module, input: Any, *others: Any, **named: Any) -> Any:
        dense = isinstance(input, Tensor) and not others and not named
        return compute(self, input) if dense else ordinary.forward(self, input, *others, **named)

    return type(ordinary.__name__, (ordinary,), {"forward": forward, "__module__": __name__})


def _convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return conv2d_5x5(x, conv.weight, conv.bias) if is_faster(conv, x) else conv2d(conv, x)


# Each has its own name, by which a model that was pickled finds it.
Conv2d = _faster(nn.Conv2d, _convolve)
ConvTranspose2d = _faster(nn.ConvTranspose2d, conv2d)
GroupNorm = _faster(nn.GroupNorm, group_norm)
SparseConv2d = _faster(sparse.SparseConv2d, conv2d)
SparseGroupNorm = _faster(sparse.SparseGroupNorm, group_norm)

_FASTER = {kind.__bases__[0]: kind for kind in (Conv2d, ConvTranspose2d, GroupNorm, SparseConv2d, SparseGroupNorm)}
