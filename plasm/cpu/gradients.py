"""Convolutions and GroupNorm with backward passes that are cheaper on a CPU.

In a training step of a small model, torch's CPU kernels spend most of their time in three gradients that need little
arithmetic. Each has an equal that is several times faster:

* the weight of a depthwise convolution wider than 3: oneDNN has its fast kernel for widths up to 3 only, so the
  gradient is taken in strips of three columns;
* a bias, which is a sum over all positions: as a plain sum, but of 1x1 and narrow depthwise kernels, where oneDNN is as
  fast;
* GroupNorm in bfloat16 with few channels a group: as matrix products with diagonal matrices. Small maps go through
  torch's kernel for contiguous ones: that for channels last takes a few channels at a time.

A fourth costs in the forward pass too: oneDNN has no fast kernel for a depthwise convolution with dilation d, so that
is taken as one without, of the d * d grids of every d-th position; for the weight's gradient the grids lie beside each
other, since oneDNN is slow at small ones.

Other devices, compiled graphs, function transforms and forward-mode differentiation get torch's own; but in a compiled
graph GroupNorm is written out, and a step takes dilated depthwise convolutions by their grids. Values and gradients are
the same to rounding.

Shapes: N frames or clips, C channels, G groups, H x W pixels, P = H * W positions.
"""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from plasm.layers.conv import pad_to_multiple

_FAST_WIDTH = 3
_FEW_CHANNELS, _FEW_PER_GROUP, _FEW_POSITIONS = 64, 16, 1024


def conv2d(conv: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """Apply a convolution to (N, C, H, W): what ``conv(x)`` gives, with gradients that are cheaper on a CPU."""
    if not (_helps(x) and _is_slow_backwards(conv)):
        if isinstance(conv, nn.Conv2d) and _is_dilated_depthwise(conv) and (is_eager_cpu(x) or _is_compiled_step(x)):
            return _by_phases(x, conv.weight, conv.bias, conv.dilation[0])
        # The class's own forward: a subclass may have come here from its own.
        kind = nn.ConvTranspose2d if isinstance(conv, nn.ConvTranspose2d) else nn.Conv2d
        return kind.forward(conv, x)  # type: ignore[arg-type]
    bias = conv.bias.detach() if conv.bias is not None and conv.bias.requires_grad else conv.bias
    if isinstance(conv, nn.ConvTranspose2d):
        padding: Any = conv.padding
        y = F.conv_transpose2d(
            x, conv.weight, bias, conv.stride, padding, conv.output_padding, conv.groups, conv.dilation
        )  # fmt: skip
    elif _is_dilated_depthwise(conv):
        y = _DilatedDepthwise.apply(*_autocast(x, conv.weight, bias), conv.dilation[0])
    elif _is_wide_depthwise(conv):
        y = _WideDepthwise.apply(*_autocast(x, conv.weight, bias), conv.padding)
    else:
        y = conv._conv_forward(x, conv.weight, bias)
    return y if bias is conv.bias else _BiasGradient.apply(y, conv.bias)


def group_norm(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """Apply a GroupNorm to (N, C, H, W): what ``norm(x)`` gives, with a gradient that is cheaper on a CPU."""
    if torch.compiler.is_compiling() and x.device.type == "cpu" and norm.bias is not None and _is_channels_last(x):
        return _traceable_group_norm(norm, x)
    channels = x.shape[1]
    few = channels <= _FEW_CHANNELS and channels // norm.num_groups < _FEW_PER_GROUP
    if norm.bias is None or not (few and x.dtype is torch.bfloat16 and _helps(x) and _is_channels_last(x)):
        return nn.GroupNorm.forward(norm, x)
    if x.shape[2] * x.shape[3] < _FEW_POSITIONS:
        return nn.GroupNorm.forward(norm, x.contiguous()).contiguous(memory_format=torch.channels_last)
    return _NarrowGroupNorm.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps)


def _helps(x: Tensor) -> bool:
    return torch.is_grad_enabled() and is_eager_cpu(x)


def _is_compiled_step(x: Tensor) -> bool:
    """Whether a graph is compiled that has gradients: torch's own of a dilated depthwise weight is wrong in bfloat16.

    With torch 2.14 and channels last, of 32 x 32 positions and more.
    """
    dynamo = torch.compiler.is_dynamo_compiling()
    return x.dim() == 4 and x.device.type == "cpu" and dynamo and torch.is_grad_enabled()


def is_eager_cpu(x: Tensor) -> bool:
    """Whether a batch of frames is on a CPU, and neither compiled, traced, transformed nor differentiated forwards."""
    return (
        x.dim() == 4
        and x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and not torch._C._functorch.peek_interpreter_stack()
        and forward_ad._current_level < 0
    )


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


def _is_slow_backwards(conv: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    if isinstance(conv, nn.ConvTranspose2d) or _is_dilated_depthwise(conv) or _is_wide_depthwise(conv):
        return True
    return conv.kernel_size != (1, 1) and (conv.groups == 1 or conv.groups < conv.in_channels)


def _is_wide_depthwise(conv: nn.Conv2d) -> bool:
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and conv.kernel_size[1] > _FAST_WIDTH
        and conv.stride == conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and isinstance(conv.padding, tuple)
    )


def _is_dilated_depthwise(conv: nn.Conv2d) -> bool:
    dilation, padding = conv.dilation[0], conv.padding
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and conv.dilation == (dilation, dilation)
        and dilation > 1
        and conv.stride == (1, 1)
        and conv.padding_mode == "zeros"
        and padding == tuple(dilation * (side // 2) for side in conv.kernel_size)
        and all(side % 2 for side in conv.kernel_size)
    )


def _by_phases(x: Tensor, weight: Tensor, bias: Tensor | None, d: int) -> Tensor:
    """Depthwise convolution of dilation d, of the input's size, as one without of the grids of every d-th position."""
    height, width = x.shape[-2:]
    # What is added at the bottom and the right counts as the zeros that the padding would have there.
    padded = pad_to_multiple(x, d)
    phases = rearrange(padded, "n c (h i) (w j) -> (i j n) h w c", i=d, j=d).permute(0, 3, 1, 2)
    y = F.conv2d(phases, weight, bias, padding=(weight.shape[-2] // 2, weight.shape[-1] // 2), groups=len(weight))
    y = rearrange(y, "(i j n) c h w -> n (h i) (w j) c", i=d, j=d).permute(0, 3, 1, 2)
    layout = torch.contiguous_format if x.is_contiguous() else torch.channels_last
    return y[..., :height, :width].contiguous(memory_format=layout)


def _autocast(*tensors: Tensor | None) -> list[Tensor | None]:
    """Cast as autocast casts the arguments of a convolution; inside an autograd function it is too late."""
    if not torch.is_autocast_enabled("cpu"):
        return list(tensors)
    dtype = torch.get_autocast_dtype("cpu")
    # It leaves float64 as it is.
    return [each if each is None or each.dtype is torch.float64 else each.to(dtype) for each in tensors]


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, P, C): a view where the memory is channels last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


class _BiasGradient(torch.autograd.Function):
    """y itself, to which ``bias`` was added already without a gradient: gives the bias its gradient."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, bias: Tensor) -> Tensor:
        ctx.dtype = bias.dtype
        # A view of it could not be changed in place afterwards, as activations do.
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, grad.sum((0, 2, 3)).to(ctx.dtype)


class _WideDepthwise(torch.autograd.Function):
    """Depthwise convolution whose weight gradient is taken in strips of a width that oneDNN is fast at."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv2d(x, weight, bias, padding=padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x, _, _ = _conv_backward(grad, x, weight, ctx.padding, (True, False, False))
        if ctx.needs_input_grad[1]:
            grad_weight = _by_strips(grad, x, weight, ctx.padding)
        return grad_x, grad_weight, None, None


class _DilatedDepthwise(torch.autograd.Function):
    """Dilated depthwise convolution, by the grids of every d-th position, backwards too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        y = _by_phases(x, weight, bias, dilation)
        # Not a view: the bias's gradient changes the output in place.
        unviewed: Tensor = torch.ops.aten._unsafe_view(y, y.shape)
        return unviewed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        reach = (weight.shape[-2] // 2, weight.shape[-1] // 2)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _by_phases(grad, weight.flip(2, 3), None, ctx.dilation)
        if ctx.needs_input_grad[1]:
            grad, x = (_tile_phases(each, ctx.dilation, reach) for each in (grad, x))
            grad_weight = _by_strips(grad, x, weight, reach)
        return grad_x, grad_weight, None, None


def _tile_phases(x: Tensor, d: int, reach: tuple[int, int]) -> Tensor:
    """The grids of every d-th position beside each other, with so many zeros between them that no tap meets two."""
    padded = pad_to_multiple(x, d).permute(0, 2, 3, 1)
    grids = rearrange(padded, "n (h i) (w j) c -> n i h j w c", i=d, j=d)
    grids = F.pad(grids, (0, 0, 0, reach[1], 0, 0, 0, reach[0]))
    return rearrange(grids, "n i h j w c -> n c (i h) (j w)")


def _by_strips(grad: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
    """The gradient of a depthwise weight, in strips of a width that oneDNN is fast at."""
    top, left = padding
    padded = F.pad(x, (left, left))
    strips = []
    for start in range(0, weight.shape[-1], _FAST_WIDTH):
        strip = weight[..., start : start + _FAST_WIDTH]
        seen = padded[..., start : start + grad.shape[-1] + strip.shape[-1] - 1]
        strips.append(_conv_backward(grad, seen, strip, (top, 0), (False, True, False))[1])
    return torch.cat(strips, -1)


def _conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int], wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    groups = len(weight)
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], groups, wanted
    )


def _traceable_group_norm(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """GroupNorm by its definition, for graphs.

    torch's kernel keeps a layout of channels last, on a CPU, where its tracer says that the result is contiguous: views
    that the graph takes of it afterwards do not fit.
    """
    grouped = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(1, (norm.num_groups, -1))
    var, mean = torch.var_mean(grouped, (2, 3, 4), correction=0, keepdim=True)
    y = ((grouped - mean) * (var + norm.eps).rsqrt()).flatten(1, 2)
    return (y * norm.weight[:, None, None] + norm.bias[:, None, None]).to(x.dtype)


class _NarrowGroupNorm(torch.autograd.Function):
    """GroupNorm of a bfloat16 channels-last tensor with few channels.

    With g the gradient of the output and m, r mean and 1 / deviation of a group, the gradient of the input is
    a g + b x + c, where a = r weight is one number a channel and frame, and b and c are one a group and frame.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float) -> Tensor:
        n, c, h, w = x.shape
        y, mean, rstd = torch.native_group_norm(x, weight, bias, n, c, h * w, num_groups, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.bias_dtype = bias.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        mean, rstd, scale = mean.float(), rstd.float(), weight.float()
        num_groups, channels = mean.shape[1], x.shape[1]
        rows, grad_rows = _rows(x), _rows(grad.contiguous(memory_format=torch.channels_last))
        grad_sum, slope_sum = _sum_positions(grad_rows), _sum_positions(grad_rows * rows)  # (N, C)

        def of_group(values: Tensor) -> Tensor:
            return (values * scale).unflatten(1, (num_groups, -1)).sum(-1)

        def per_channel(values: Tensor) -> Tensor:
            return values.repeat_interleave(channels // num_groups, 1)

        count = rows.shape[1] * channels // num_groups
        b = -(rstd**3) * (of_group(slope_sum) - mean * of_group(grad_sum)) / count
        c = -rstd * of_group(grad_sum) / count - b * mean
        a = per_channel(rstd) * scale
        grad_weight = ((slope_sum - per_channel(mean) * grad_sum) * per_channel(rstd)).sum(0)
        a, b, c = a.to(x.dtype), per_channel(b).to(x.dtype), per_channel(c).to(x.dtype)
        grad_x = torch.baddbmm(c.unsqueeze(1), grad_rows, a.diag_embed()).baddbmm_(rows, b.diag_embed())
        grad_x = grad_x.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        return grad_x, grad_weight.to(weight.dtype), grad_sum.sum(0).to(ctx.bias_dtype), None, None


def _sum_positions(rows: Tensor) -> Tensor:
    """(N, P, C) to (N, C), fp32. Sums are rounded to bfloat16, so many short ones are added up."""
    parts = next(parts for parts in (16, 8, 4, 2, 1) if rows.shape[1] % parts == 0)
    return rows.unflatten(1, (parts, -1)).sum(2).float().sum(1)
