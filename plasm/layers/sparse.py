"""Sparse convolution: masked pixels cost nothing, and the parameters are the ordinary layer's.

Phase 1 of PLA-SM shows the encoder about 4 % of the pixels (Section III-F). Here features exist at visible sites
only, and a convolution multiplies just the pairs (input site, output site) that a kernel tap joins:

    from_dense --> [conv --> norm, act] x depth --> to_dense        one row of features per visible site
                      |
                      +-- pairs of rows, tap by tap; built once per (sites, kernel, stride), then shared

A convolution is one matrix product per tap over that tap's pairs, then one sum over the pairs of each output row. The
gradients are the same two steps with input and output exchanged: only features and tables are kept for them.

Shape legend
    N - frames            C - channels          H, W - height, width of the dense grid
    n - visible sites     K - kernel taps       G - channel groups
    P - pairs of visible sites that a tap joins, over all taps
"""

from collections.abc import Callable, Iterable
from typing import Any, Sequence, TypeVar, final  # noqa: UP035 - torch 2.6 reads no other Sequence in operators

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .conv import NEGATIVE_SLOPE, init_conv_, run_block
from .sparse_sites import SparseSites, find_sites, row_numbers


@final
class SparseTensor:
    """Features of the visible sites of a batch of frames.

    Args:
        features: (n, C), one row per site.
        sites: which row lies where.
    """

    def __init__(self, features: Tensor, sites: SparseSites) -> None:
        self.features = features
        self.sites = sites

    @classmethod
    def from_dense(cls, x: Tensor, visible: Tensor) -> "SparseTensor":
        """Take the visible sites of a dense tensor; masked ones may hold anything, NaN too.

        Args:
            x: (N, C, H, W).
            visible: (N, 1, H, W) bool, True where a site is.

        Raises:
            ValueError: if `visible` is not bool (N, 1, H, W) with the frames and size of `x`.
        """
        sites = find_sites(visible)
        return cls(sites.gather(x), sites)

    def to_dense(self) -> Tensor:
        """Dense (N, C, H, W) tensor, channels last in memory, zeros where nothing is visible."""
        return self.sites.scatter(self.features)

    @property
    def visible(self) -> Tensor:
        """(N, 1, H, W) bool, True where a site is."""
        return self.sites.visible

    def map(self, fn: Callable[[Tensor], Tensor]) -> "SparseTensor":
        """Apply a pointwise function, an activation say, to the features."""
        return SparseTensor(fn(self.features), self.sites)

    def __repr__(self) -> str:
        return f"SparseTensor(features={tuple(self.features.shape)}, visible={tuple(self.visible.shape)})"


# --- convolution ------------------------------------------------------------------------------------------------------


def _sum_rows(x: Tensor, rows: Tensor, offsets: Tensor) -> Tensor:
    """out[i] = sum of x[rows[j]] for j from offsets[i] to offsets[i + 1].

    embedding_bag is torch's one segment sum that is parallel, copies no gathered rows and needs no atomics; on a CPU it
    takes a seventh of index_add_'s time.
    """
    return torch.embedding_bag(x, rows, offsets, False, 0, False, None, True)[0]


def _taps(weight: Tensor) -> Tensor:
    """(C_out, C_in, k, k) to (K, C_in, C_out)."""
    return weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[1], weight.shape[0])


def _select(x: Tensor, rows: Tensor) -> Tensor:
    """Rows of one tap. A tap that uses every row uses them in order, since both its sides are in raster order."""
    return x if rows.shape[0] == x.shape[0] else x.index_select(0, rows)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, table: Sequence[Tensor]) -> Tensor:
    """One matrix product per tap, then a sum over the pairs of each output row."""
    inputs, _, counts, output_pairs, output_offsets, _, _ = table
    products = x.new_empty(inputs.shape[0], weight.shape[0])
    bounds = counts.tolist()
    for rows, out, tap in zip(torch.split(inputs, bounds), torch.split(products, bounds), _taps(weight), strict=True):
        torch.mm(_select(x, rows), tap, out=out)
    y = _sum_rows(products, output_pairs, output_offsets)
    return y if bias is None else y.add_(bias)


def _convolve_backward(
    grad: Tensor, x: Tensor, weight: Tensor, table: Sequence[Tensor], need_input: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of `_convolve` for x and weight; each tap's rows are gathered once and used while in cache."""
    inputs, outputs, counts, _, _, input_pairs, input_offsets = table
    taps, bounds = _taps(weight), counts.tolist()
    grad_taps = torch.empty_like(taps)
    products = x.new_empty(inputs.shape[0] if need_input else 0, weight.shape[1])
    start = 0
    for k, (in_rows, out_rows) in enumerate(
        zip(torch.split(inputs, bounds), torch.split(outputs, bounds), strict=True)
    ):
        grad_rows = _select(grad, out_rows)
        torch.mm(_select(x, in_rows).t(), grad_rows, out=grad_taps[k])
        if need_input:
            torch.mm(grad_rows, taps[k].t(), out=products[start : start + bounds[k]])
        start += bounds[k]
    grad_weight = grad_taps.permute(2, 1, 0).contiguous().view(weight.shape)
    return _sum_rows(products, input_pairs, input_offsets) if need_input else products, grad_weight


# As custom operators the loops over taps stay out of compiled graphs: their bounds change with every batch.
_conv_op = torch.library.custom_op("plasm::sparse_conv2d", _convolve, mutates_args=())
_conv_backward_op = torch.library.custom_op("plasm::sparse_conv2d_backward", _convolve_backward, mutates_args=())


@_conv_op.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, table: Sequence[Tensor]) -> Tensor:
    return x.new_empty(table[4].shape[0] - 1, weight.shape[0])


@_conv_backward_op.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, table: Sequence[Tensor], need_input: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0] if need_input else 0, x.shape[1]), weight.new_empty(weight.shape)


def _conv_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, table = inputs
    ctx.save_for_backward(x, weight, *table)
    ctx.has_bias = bias is not None


def _conv_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, list[None]]:
    x, weight, *table = ctx.saved_tensors
    need_input = ctx.needs_input_grad[0]
    grad_x, grad_weight = _conv_backward_op(grad.contiguous(), x, weight, table, need_input)
    return grad_x if need_input else None, grad_weight, grad.sum(0) if ctx.has_bias else None, [None] * len(table)


_conv_op.register_autograd(_conv_backward, setup_context=_conv_setup)


def sparse_conv2d(x: SparseTensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1) -> SparseTensor:
    """Convolution over visible sites only; a masked neighbour counts as zero (Section III-C).

    It equals `F.conv2d(dense x, weight, bias, stride, padding=k // 2)` at the output sites (`SparseSites.strided`).
    Under autocast it runs in autocast's dtype, as the dense convolution does.

    Args:
        x: C_in channels.
        weight: (C_out, C_in, k, k), k = 1 or 3.
        bias: (C_out,).
        stride: 1 or 2.

    Returns:
        C_out channels at the output sites.

    Raises:
        ValueError: for another kernel size, stride or number of input channels.
    """
    kernel_size, device_type = weight.shape[-1], weight.device.type
    if kernel_size not in (1, 3) or weight.shape[-2] != kernel_size or stride not in (1, 2):
        raise ValueError(
            f"sparse convolution has kernels 1x1 and 3x3 and strides 1 and 2, got weight {tuple(weight.shape)} "
            f"and stride {stride}; call to_dense() for others"
        )
    if weight.shape[1] != x.features.shape[1]:
        raise ValueError(f"weight {tuple(weight.shape)} (groups=1) does not fit {x.features.shape[1]} input channels")
    features = x.features
    # Autocast leaves float64 as it is.
    if torch.is_autocast_enabled(device_type) and features.dtype is not torch.float64:
        dtype = torch.get_autocast_dtype(device_type)
        features, weight, bias = features.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    if kernel_size == stride == 1:
        return SparseTensor(F.linear(features, weight.flatten(1), bias), x.sites)
    table = x.sites.pairs(kernel_size, stride)
    return SparseTensor(_conv_op(features, weight, bias, list(table)), x.sites.strided(stride))


# --- normalisation, with the activation that follows it ---------------------------------------------------------------


class _GroupNormAct(torch.autograd.Function):
    """GroupNorm over each frame's rows, then LeakyReLU: keeps its input, its output and two numbers per group."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        frames: Tensor,
        frame_offsets: Tensor,
        num_groups: int,
        eps: float,
        slope: float,
    ) -> Tensor:
        grouped, rows, wide = (x.shape[0], num_groups, x.shape[1] // num_groups), row_numbers(x), _at_least_fp32(x)
        # At least 1: a frame without visible pixels divides by it.
        count = frame_offsets.diff().clamp(min=1).mul(grouped[2]).to(wide.dtype).unsqueeze(1)
        mean = _sum_groups(_sum_rows(wide, rows, frame_offsets), num_groups) / count
        centred = wide.view(grouped) - _per_row(mean, frames)
        variance = _sum_groups(_sum_rows(centred.square().view(x.shape), rows, frame_offsets), num_groups) / count
        rstd = (variance + eps).rsqrt()
        y = centred.mul_(_per_row(rstd, frames)).view(x.shape)
        if weight is not None:
            y.mul_(weight)
        if bias is not None:
            y.add_(bias)
        y = F.leaky_relu_(y, slope).to(x.dtype)
        ctx.save_for_backward(x, y, weight, mean, rstd, count, frames, frame_offsets)
        ctx.grouped, ctx.slope, ctx.bias_dtype = grouped, slope, None if bias is None else bias.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight, mean, rstd, count, frames, frame_offsets = ctx.saved_tensors
        grouped, num_groups, rows = ctx.grouped, ctx.grouped[1], row_numbers(x)
        rstd_rows = _per_row(rstd, frames)
        normed = (_at_least_fp32(x).view(grouped) - _per_row(mean, frames)).mul_(rstd_rows)
        # The slope is positive: y has the sign of the activation's argument. The result is ours to change in place.
        grad = torch.ops.aten.leaky_relu_backward(_at_least_fp32(grad), _at_least_fp32(y), ctx.slope, True)
        grad_bias = _sum_rows(grad, rows, frame_offsets)  # (N, C) so far: both sums serve twice
        grad_weight = _sum_rows(grad * normed.view(x.shape), rows, frame_offsets)
        scale = torch.ones_like(grad_bias[:1]) if weight is None else weight.to(grad.dtype)
        shift = _sum_groups(grad_bias * scale, num_groups) / count
        slant = _sum_groups(grad_weight * scale, num_groups) / count
        grad_x = grad.mul_(scale).view(grouped).sub_(_per_row(shift, frames))
        grad_x = grad_x.sub_(normed.mul_(_per_row(slant, frames))).mul_(rstd_rows).view(x.shape).to(x.dtype)
        return (
            grad_x,
            None if weight is None else grad_weight.sum(0).to(weight.dtype),
            None if ctx.bias_dtype is None else grad_bias.sum(0).to(ctx.bias_dtype),
            *[None] * 5,
        )


def _at_least_fp32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _sum_groups(x: Tensor, num_groups: int) -> Tensor:
    """(N, C) to (N, G)."""
    # Not -1: of no frames it would be any number.
    return x.view(x.shape[0], num_groups, x.shape[1] // num_groups).sum(-1)


def _per_row(x: Tensor, frames: Tensor) -> Tensor:
    """(N, G) to (n, G, 1): each row gets its frame's numbers."""
    return x.index_select(0, frames).unsqueeze(-1)


def sparse_group_norm(
    x: SparseTensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    negative_slope: float = 1.0,
) -> SparseTensor:
    """GroupNorm with statistics over a frame's visible sites only, then LeakyReLU.

    Mean and variance are over (visible sites of the frame) x (channels of the group), in fp32 at least, in two passes.

    Args:
        x: C channels.
        num_groups: groups, a divisor of C.
        weight: (C,).
        bias: (C,).
        eps: added to the variance.
        negative_slope: of the LeakyReLU, positive; 1 means none. In one step the two keep one tensor less.

    Returns:
        The sites and the dtype of `x`.

    Raises:
        ValueError: if C is not a multiple of `num_groups`, or the slope is not positive.
    """
    if x.features.shape[1] % num_groups:
        raise ValueError(f"{x.features.shape[1]} channels do not divide into {num_groups} groups")
    if negative_slope <= 0:
        raise ValueError(f"negative_slope must be positive, got {negative_slope}")
    sites = x.sites
    y = _GroupNormAct.apply(
        x.features, weight, bias, sites.frames, sites.frame_offsets, num_groups, eps, negative_slope
    )
    return SparseTensor(y, sites)


# --- layers: the ordinary ones, which also take a SparseTensor --------------------------------------------------------

_X = TypeVar("_X", Tensor, SparseTensor)


class SparseConv2d(nn.Conv2d):
    """`nn.Conv2d` that also takes a `SparseTensor`: same arguments, same parameters, same state-dict keys."""

    def forward(self, input: _X) -> _X:
        """Convolve a dense tensor as `nn.Conv2d` does, or visible sites only with `sparse_conv2d`.

        Raises:
            ValueError: for a SparseTensor, unless kernel 1 or 3, stride 1 or 2, zero padding k // 2, groups 1, no
                dilation.
        """
        if isinstance(input, Tensor):
            return super().forward(input)
        k, stride = self.kernel_size[0], self.stride[0]
        given = (self.kernel_size, self.stride, self.padding, self.dilation, self.groups, self.padding_mode)
        if given != ((k, k), (stride, stride), (k // 2, k // 2), (1, 1), 1, "zeros"):
            raise ValueError(
                f"{self} takes no SparseTensor: that needs a square kernel, equal strides, zero padding of "
                "kernel_size // 2, dilation 1 and groups 1; call to_dense() first"
            )
        return sparse_conv2d(input, self.weight, self.bias, stride)


class SparseGroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` that also takes a `SparseTensor`: same arguments, same parameters, same state-dict keys."""

    def forward(self, input: _X) -> _X:
        """Normalise a dense tensor as `nn.GroupNorm` does, or each frame's visible sites with `sparse_group_norm`."""
        if isinstance(input, Tensor):
            return super().forward(input)
        return sparse_group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class SparseConvBlock(nn.Module):
    """3x3 convolution, GroupNorm, LeakyReLU with slope 0.2 (Section III-C); Kaiming initialisation, fan-in."""

    def __init__(self, in_chans: int, dim: int, stride: int = 1, num_groups: int = 2, **dd: Any) -> None:
        super().__init__()
        self.conv = init_conv_(SparseConv2d(in_chans, dim, 3, stride, padding=1, **dd))
        self.norm = SparseGroupNorm(num_groups, dim, **dd)
        self.act = nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)

    def forward(self, x: _X) -> _X:
        """(N, in_chans, H, W) to (N, dim, H / stride, W / stride), rounded up; dense or sparse as `x` is."""
        if isinstance(x, Tensor):
            return self.act(self.norm(self.conv(x)))
        norm, slope = self.norm, self.act.negative_slope
        return sparse_group_norm(self.conv(x), norm.num_groups, norm.weight, norm.bias, norm.eps, slope)


class SparseStack(nn.Module):
    """Blocks that each take dense frames or a `SparseTensor`: a mask means sparse, none means dense.

    Args:
        blocks: of strides 1, 2, 1, 2, ...
        dim: channels of the last.
        kernel_size: of their convolutions.
    """

    def __init__(self, blocks: Iterable[nn.Module], dim: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.num_features, self.reduction = dim, 2 ** (len(self.blocks) // 2)
        self.kernel_size, self.grad_checkpointing = kernel_size, False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its features."""
        self.grad_checkpointing = enable

    def forward(self, frames: Tensor, visible: Tensor | None = None) -> Tensor:
        """Encode frames, or what a mask shows of them.

        Args:
            frames: (N, in_chans, H, W).
            visible: (N, 1, H, W) bool, True = visible; None runs the dense layers.

        Returns:
            (N, dim, h, w), h = ceil(H / reduction); zeros where nothing was visible.

        Raises:
            ValueError: if `visible` is not bool (N, 1, H, W), or with it the kernels are not 1x1 or 3x3.
        """
        if visible is None:
            return self._run(self.blocks, frames)
        if self.kernel_size not in (1, 3):
            # Before the tables are built: a wider kernel would look past the border of their grid.
            raise ValueError(
                f"with a mask, this encoder takes kernels 1x1 and 3x3 alone, and has {self.kernel_size}x"
                f"{self.kernel_size}: make it with a kernel size of 3, or leave the mask out"
            )
        sites = find_sites(visible, [(self.kernel_size, 1 + i % 2) for i in range(len(self.blocks))])
        return self._run(self.blocks, SparseTensor(sites.gather(frames), sites)).to_dense()

    def forward_skip(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(N, in_chans, H, W) to what ``forward`` gives, and the first block's output (N, dim, H, W), both dense."""
        first = self._run(self.blocks[:1], frames)
        return self._run(self.blocks[1:], first), first

    def _run(self, blocks: Iterable[nn.Module], x: _X) -> _X:
        for block in blocks:
            x = run_block(block, x, recompute=self.grad_checkpointing)
        return x


class SparseEncoder(SparseStack):
    """The encoder of both phases: `depth` blocks, every second one of stride 2 (Section III-C).

    Args:
        in_chans: image channels.
        dim: encoder channels.
        depth: blocks.
        num_groups: of the norms; the paper does not give it.
    """

    def __init__(self, in_chans: int = 1, dim: int = 64, depth: int = 4, num_groups: int = 2, **dd: Any) -> None:
        if min(in_chans, dim, depth) < 1:
            raise ValueError(f"in_chans, dim and depth must be positive, got {in_chans}, {dim} and {depth}")
        blocks = (SparseConvBlock(dim if i else in_chans, dim, 1 + i % 2, num_groups, **dd) for i in range(depth))
        super().__init__(blocks, dim)
