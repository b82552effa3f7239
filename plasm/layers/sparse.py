"""Sparse convolution: masked pixels cost nothing, and the parameters are the ordinary layer's.

Phase 1 of PLA-SM shows the encoder about 4 % of the pixels (paper, Section III-F). Here features exist at visible sites
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

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = [
    "SparseConv2d",
    "SparseConvBlock",
    "SparseEncoder",
    "SparseGroupNorm",
    "SparseSites",
    "SparseTensor",
    "sparse_conv2d",
    "sparse_group_norm",
]

# --- sites: which places are visible, which row holds each, which rows a kernel joins ---------------------------------


class PairTable(NamedTuple):
    """The pairs of rows that a kernel joins, sorted by tap and within a tap by output row.

    `inputs`, `outputs` (P,): the rows of each pair. `counts` (K,): pairs of each tap, on the CPU, since they become
    slice bounds. `output_pairs` (P,): the pairs again, sorted by output row, of which row i has those from
    `output_offsets[i]` to `output_offsets[i + 1]`. `input_pairs`, `input_offsets`: the same by input row.
    """

    inputs: Tensor
    outputs: Tensor
    counts: Tensor
    output_pairs: Tensor
    output_offsets: Tensor
    input_pairs: Tensor
    input_offsets: Tensor


class SparseSites:
    """The visible places of a batch of frames; all tensors and layers at one resolution share one.

    Rows follow the raster order of their places, frame after frame, so that a frame's rows are contiguous.

    Args:
        visible: (N, 1, H, W) bool, True where a site is.

    Attributes:
        grid: (N, H + 2, W + 2) the row of each place, -1 where nothing is and in the border, so that a kernel may look
            past the edge. It serves as the paper's hash table (Section III-F).
        places: (n,) where each row lies in N x H x W.
        frames: (n,) which frame each row belongs to.
        frame_offsets: (N + 1,) where each frame's rows begin.

    Raises:
        ValueError: if `visible` is not bool (N, 1, H, W).
    """

    def __init__(self, visible: Tensor) -> None:
        if visible.dtype != torch.bool or visible.ndim != 4 or visible.shape[1] != 1:
            raise ValueError(f"visible must be bool (N, 1, H, W), got {visible.dtype} {tuple(visible.shape)}")
        num_frames, _, height, width = visible.shape
        self.visible = visible
        self.places = visible.flatten().nonzero().squeeze(1)
        self.frames = self.places // (height * width)
        frame_starts = torch.arange(num_frames + 1, device=visible.device) * (height * width)
        self.frame_offsets = torch.searchsorted(self.places, frame_starts, out_int32=True)
        self.grid = torch.full((num_frames, height + 2, width + 2), -1, dtype=torch.int32, device=visible.device)
        self.grid.view(-1).index_copy_(0, self._look_up(self.grid, 1, 1), _arange(self.places))
        self._coarse: SparseSites | None = None
        self._pairs: dict[tuple[int, int], PairTable] = {}
        _mark_dynamic(self.places, self.frames)

    def strided(self, stride: int) -> "SparseSites":
        """Output sites of a convolution: these at stride 1; at stride 2 active iff any of 2 x 2 places is."""
        if stride == 1:
            return self
        if self._coarse is None:
            self._coarse = _coarsen(self)
        return self._coarse

    def pairs(self, kernel_size: int, stride: int) -> PairTable:
        """Pairs of a convolution over these sites, built at the first call."""
        if (kernel_size, stride) not in self._pairs:
            self._pairs[kernel_size, stride] = _find_pairs(self, kernel_size, stride)
        return self._pairs[kernel_size, stride]

    def gather(self, x: Tensor) -> Tensor:
        """Rows (n, C) of a dense (N, C, H, W) tensor; what lies at masked places meets no arithmetic.

        Raises:
            ValueError: if `x` has other frames or another size than the sites.
        """
        if x.ndim != 4 or self.visible.shape != (x.shape[0], 1, *x.shape[2:]):
            raise ValueError(
                f"x must be (N, C, H, W) and visible (N, 1, H, W), got {tuple(x.shape)} and {tuple(self.visible.shape)}"
            )
        return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).index_select(0, self.places)

    def scatter(self, features: Tensor) -> Tensor:
        """The inverse of `gather`, with zeros elsewhere: (N, C, H, W), channels last in memory."""
        num_frames, _, height, width = self.visible.shape
        dense = features.new_zeros(num_frames * height * width, features.shape[1])
        dense = dense.index_copy_(0, self.places, features)
        return dense.view(num_frames, height, width, features.shape[1]).permute(0, 3, 1, 2)

    def _look_up(self, grid: Tensor, stride: int, shift: int) -> Tensor:
        """(n,) where `stride * (y, x) + shift` of each site (y, x) lies in a bordered grid."""
        height, width = self.visible.shape[-2:]
        y, x = self.places // width % height, self.places % width
        return (self.frames * grid.shape[1] + y * stride + shift) * grid.shape[2] + x * stride + shift


def _arange(like: Tensor) -> Tensor:
    """0, 1, ... for each row of a tensor."""
    return torch.arange(like.shape[0], dtype=torch.int32, device=like.device)


def _mark_dynamic(*tensors: Tensor) -> None:
    """Tell the compiler now that these lengths change with every batch: it need not find out by compiling twice."""
    for tensor in tensors:
        torch._dynamo.maybe_mark_dynamic(tensor, 0)


# The compiler stays out of the next three: sizes depend on the data there. What it compiles receives finished tables.


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _find_sites(visible: Tensor, layers: Sequence[tuple[int, int]] = ()) -> SparseSites:
    """Sites of a mask, with the tables of a chain of (kernel_size, stride) layers already built."""
    sites = level = SparseSites(visible)
    for kernel_size, stride in layers:
        level.pairs(kernel_size, stride)
        level = level.strided(stride)
    return sites


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _coarsen(sites: SparseSites) -> SparseSites:
    """`F.max_pool2d(visible, 2, ceil_mode=True)` without looking at masked places (DESIGN.md section 4, point 7)."""
    num_frames, _, height, width = sites.visible.shape
    coarse = sites.visible.new_zeros(num_frames, 1, (height + 1) // 2, (width + 1) // 2)
    rows = sites.frames * coarse.shape[2] + sites.places // width % height // 2
    coarse.view(-1).index_fill_(0, rows * coarse.shape[3] + sites.places % width // 2, True)
    return SparseSites(coarse)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _find_pairs(sites: SparseSites, kernel_size: int, stride: int) -> PairTable:
    """Look up every tap of every output site in the grid and keep those that hit a site."""
    out_sites, num_taps = sites.strided(stride), kernel_size**2
    num_outputs = out_sites.places.shape[0]
    tap = torch.arange(kernel_size, device=sites.grid.device)
    steps = (tap[:, None] * sites.grid.shape[2] + tap).view(-1, 1)
    first = out_sites._look_up(sites.grid, stride, 1 - kernel_size // 2)  # 1 is the border
    rows = sites.grid.view(-1).index_select(0, (steps + first).view(-1))  # (K * n_out,), tap after tap
    hits = (rows >= 0).nonzero().squeeze(1)
    taps = hits // max(num_outputs, 1)
    inputs, outputs = rows.index_select(0, hits), hits - taps * num_outputs
    counts = torch.bincount(taps, minlength=num_taps)
    by_output = _group_pairs(outputs, taps, num_outputs, num_taps)
    if stride == 1:
        # Who sees a neighbour is seen by it through the opposite tap, and raster order keeps both in step: the j-th
        # pair of tap k, turned round, is the j-th pair of tap K - 1 - k.
        first_pair = counts.cumsum(0) - counts
        mirror = _arange(hits) + (first_pair.flip(0) - first_pair).int()[taps]
        by_input = mirror.index_select(0, by_output[0]), by_output[1]
    else:
        by_input = _group_pairs(inputs, taps, sites.places.shape[0], num_taps)
    outputs = outputs.int()
    _mark_dynamic(inputs, outputs, *by_output, *by_input)
    return PairTable(inputs, outputs, counts.cpu(), *by_output, *by_input)


def _group_pairs(rows: Tensor, taps: Tensor, num_rows: int, num_taps: int) -> tuple[Tensor, Tensor]:
    """Order pairs by row without sorting: a row has at most one pair per tap, so (row, tap) is a slot of its own.

    Args:
        rows: (P,) the row of each pair.
        taps: (P,) the tap of each pair.
        num_rows: rows in all.
        num_taps: taps in all.

    Returns:
        (P,) the pairs ordered by row, and (num_rows + 1,) where each row begins.
    """
    slots = rows * num_taps + taps
    used = torch.zeros(num_rows * num_taps, dtype=torch.int32, device=rows.device)
    used.index_fill_(0, slots, 1)
    rank = used.cumsum(0, dtype=torch.int32)
    pairs = torch.empty_like(slots, dtype=torch.int32)
    pairs.index_copy_(0, rank.index_select(0, slots).long() - 1, _arange(slots))
    return pairs, F.pad(rank[num_taps - 1 :: num_taps], (1, 0))


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
        sites = _find_sites(visible)
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
    """Convolution over visible sites only; a masked neighbour counts as zero (paper, Section III-F).

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
    if torch.is_autocast_enabled(device_type):
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
        grouped, rows, wide = (x.shape[0], num_groups, x.shape[1] // num_groups), _arange(x), _at_least_fp32(x)
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
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight, mean, rstd, count, frames, frame_offsets = ctx.saved_tensors
        grouped, num_groups, rows = ctx.grouped, ctx.grouped[1], _arange(x)
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
    return x.view(x.shape[0], num_groups, -1).sum(-1)


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
    """GroupNorm with statistics over a frame's visible sites only, then LeakyReLU (DESIGN.md section 4, point 8).

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


class SparseConv2d(nn.Conv2d):
    """`nn.Conv2d` that also takes a `SparseTensor`: same arguments, same parameters, same state-dict keys."""

    @overload
    def forward(self, input: Tensor) -> Tensor: ...

    @overload
    def forward(self, input: SparseTensor) -> SparseTensor: ...

    def forward(self, input: Tensor | SparseTensor) -> Tensor | SparseTensor:
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

    @overload
    def forward(self, input: Tensor) -> Tensor: ...

    @overload
    def forward(self, input: SparseTensor) -> SparseTensor: ...

    def forward(self, input: Tensor | SparseTensor) -> Tensor | SparseTensor:
        """Normalise a dense tensor as `nn.GroupNorm` does, or each frame's visible sites with `sparse_group_norm`."""
        if isinstance(input, Tensor):
            return super().forward(input)
        return sparse_group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class SparseConvBlock(nn.Module):
    """3x3 convolution, GroupNorm, LeakyReLU with slope 0.2 (paper, Section III-C); Kaiming initialisation, fan-in."""

    def __init__(
        self,
        in_chans: int,
        dim: int,
        stride: int = 1,
        num_groups: int = 2,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.conv = SparseConv2d(in_chans, dim, 3, stride, padding=1, device=device, dtype=dtype)
        self.norm = SparseGroupNorm(num_groups, dim, device=device, dtype=dtype)
        self.act = nn.LeakyReLU(0.2)
        nn.init.kaiming_normal_(self.conv.weight, a=0.2, mode="fan_in", nonlinearity="leaky_relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    @overload
    def forward(self, x: Tensor) -> Tensor: ...

    @overload
    def forward(self, x: SparseTensor) -> SparseTensor: ...

    def forward(self, x: Tensor | SparseTensor) -> Tensor | SparseTensor:
        """(N, in_chans, H, W) to (N, dim, H / stride, W / stride), rounded up; dense or sparse as `x` is."""
        if isinstance(x, Tensor):
            return self.act(self.norm(self.conv(x)))
        norm, slope = self.norm, self.act.negative_slope
        return sparse_group_norm(self.conv(x), norm.num_groups, norm.weight, norm.bias, norm.eps, slope)


_X = TypeVar("_X", Tensor, SparseTensor)


class SparseEncoder(nn.Module):
    """The encoder of both phases: `depth` blocks, every second one of stride 2 (paper, Section III-C).

    It is the one place that chooses: a mask means sparse, none means dense; the parameters are the same.

    Args:
        in_chans: image channels.
        dim: encoder channels.
        depth: blocks.
        num_groups: of the norms; the paper does not give it (DESIGN.md section 4, point 9).
        device: of the parameters.
        dtype: of the parameters.
    """

    def __init__(
        self,
        in_chans: int = 1,
        dim: int = 64,
        depth: int = 4,
        num_groups: int = 2,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_features, self.reduction = dim, 2 ** (depth // 2)
        self.grad_checkpointing = False
        self.blocks = nn.ModuleList(
            SparseConvBlock(dim if i else in_chans, dim, 1 + i % 2, num_groups, device, dtype) for i in range(depth)
        )

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
            ValueError: if `visible` is not bool (N, 1, H, W).
        """
        if visible is None:
            return self._run(frames)
        sites = _find_sites(visible, [(3, 1 + i % 2) for i in range(len(self.blocks))])
        return self._run(SparseTensor(sites.gather(frames), sites)).to_dense()

    def _run(self, x: _X) -> _X:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.grad_checkpointing and self.training else block(x)
        return x
