"""Layers that compute what torch's compute, sooner on a CPU; and how those of a model become them.

Only its class is another: a layer keeps its parameters, hooks, options and names. Each class is a subclass of the
ordinary one, of the same name.
"""

from typing import Any, TypeVar

from torch import Tensor, nn

from plasm.layers import sparse

from .gradients import conv2d, group_norm
from .winograd import conv2d_5x5, is_faster, kernels_transformed_once

__all__ = ["speed_up"]

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
        elif hasattr(module, "unrolling"):
            module.unrolling = kernels_transformed_once
    return model


class Conv2d(nn.Conv2d):
    """``nn.Conv2d``, by Winograd's method or with cheaper gradients."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C_out, H', W')."""
        return conv2d_5x5(input, self.weight, self.bias) if is_faster(self, input) else conv2d(self, input)


class ConvTranspose2d(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` with cheaper gradients."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, C, H, W) -> (N, C_out, H', W')."""
        return super().forward(input, output_size) if output_size is not None else conv2d(self, input)


class GroupNorm(nn.GroupNorm):
    """``nn.GroupNorm`` with a cheaper gradient."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> same."""
        return group_norm(self, input)


class SparseConv2d(sparse.SparseConv2d):
    """``SparseConv2d``, of which the dense layer has cheaper gradients."""

    def forward(self, input: Any) -> Any:
        """(N, C, H, W) -> (N, C_out, H', W'), or SparseTensor -> SparseTensor."""
        return conv2d(self, input) if isinstance(input, Tensor) else super().forward(input)


class SparseGroupNorm(sparse.SparseGroupNorm):
    """``SparseGroupNorm``, of which the dense layer has a cheaper gradient."""

    def forward(self, input: Any) -> Any:
        """(N, C, H, W) -> same, or SparseTensor -> SparseTensor."""
        return group_norm(self, input) if isinstance(input, Tensor) else super().forward(input)


_FASTER: dict[type[nn.Module], type[nn.Module]] = {
    faster.__mro__[1]: faster for faster in (Conv2d, ConvTranspose2d, GroupNorm, SparseConv2d, SparseGroupNorm)
}
