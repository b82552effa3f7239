r"""Convolutions of 5x5 kernels with fewer multiplications, for the gates of recurrent cells on a CPU.

Four rows of the output come from eight rows of the input. With d a column of those eight and g a column of a kernel,

    y = A^T [(G g) (B^T d)]

is their correlation (Winograd's minimal filtering F(4, 5): Lavin and Gray, CVPR 2016, arXiv 1509.09308, Section 4):
eight products where five taps of four rows take twenty. So along the rows alone: what is left are eight convolutions of
1x5 kernels, one for each row of B^T, as one of eight groups. Nested in both directions there would be fewer products
still, but as matrix products, which here ran at a third of the speed of oneDNN's convolutions.

The values are the direct convolution's to rounding, with two to three times its error: some 5e-6 of the largest value.

Shapes: N frames or clips, C channels in, O channels out, H x W positions, Q = H / 4 rows of tiles.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .gradients import is_eager_cpu

_KERNEL, _ROWS = 5, 4
_POINTS = _KERNEL + _ROWS - 1
_LEAST_CHANNELS, _VECTOR = 64, 16
# Of all frames. With fewer, the kernels, 1.6 times as many numbers as the weight, cost more than they save.
_LEAST_POSITIONS = 1024
_LARGEST_PRODUCTS = 1 << 23  # numbers: what the caches hold

_Kernels: TypeAlias = dict[tuple[int, bool], tuple[Tensor, tuple[Tensor, ...]]]
_kernels: ContextVar[_Kernels | None] = ContextVar("kernels", default=None)


def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """A^T (4, 8), G (8, 5) and B^T (8, 8), float64: Toom-Cook with the points 0, +-1, +-2, +-1/2 and infinity."""
    points = torch.tensor([0, 1, -1, 2, -2, 0.5, -0.5], dtype=torch.float64, device="cpu")

    def evaluate(degree: int) -> Tensor:
        infinity = torch.eye(degree, dtype=torch.float64, device="cpu")[-1:]
        return torch.cat([torch.vander(points, degree, increasing=True), infinity])

    return evaluate(_ROWS).T.contiguous(), evaluate(_KERNEL), torch.linalg.inv(evaluate(_POINTS)).T.contiguous()


_A_T, _G, _B_T = _transforms()


def conv2d_5x5(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What ``F.conv2d(x, weight, bias, padding=2)`` gives, to rounding, of (N, C, H, W) and a kernel of 5 x 5.

    The output (N, O, H, W) is channels last in memory.
    """
    kernels = _transformed(weight)
    height, width = x.shape[-2:]
    rows = F.pad(x, (0, 0, 0, -height % _ROWS)) if height % _ROWS else x
    frames = max(1, _LARGEST_PRODUCTS // (_POINTS * rows.shape[2] // _ROWS * width * len(weight)))
    parts = [_RowTiles.apply(part, *kernels) for part in rows.split(frames)]
    y = (parts[0] if len(parts) == 1 else torch.cat(parts))[:, :, :height]
    return y if bias is None else y + bias[:, None, None]


@contextmanager
def kernels_transformed_once() -> Iterator[None]:
    """Inside, each weight is transformed when it is first met, and not again: it must not change there.

    Not for code that ``torch.utils.checkpoint`` runs twice, which must do the same both times.
    """
    token = _kernels.set({})
    try:
        yield
    finally:
        _kernels.reset(token)


def is_faster(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether ``conv2d_5x5`` gives what a convolution gives of x (N, C, H, W), and sooner."""
    # First of all whether it runs at all: a graph must not depend on the sizes read below.
    return (
        is_eager_cpu(x)
        and conv.kernel_size == (_KERNEL, _KERNEL)
        and conv.padding == (_KERNEL // 2, _KERNEL // 2)
        and conv.stride == conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and min(conv.in_channels, conv.out_channels) >= _LEAST_CHANNELS
        and conv.in_channels % _VECTOR == conv.out_channels % _VECTOR == 0
        and x.shape[1] == conv.in_channels
        and x.shape[0] * x.shape[2] * x.shape[3] >= _LEAST_POSITIONS
        and x.dtype is conv.weight.dtype is torch.float32
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
    )


def _transformed(weight: Tensor) -> tuple[Tensor, ...]:
    """(O, C, 5, 5) to the kernels of the eight groups, (8 O, C, 1, 5) without gradient, and (O, C, 1, 5) each."""
    known = _kernels.get()
    key = id(weight), torch.is_grad_enabled()  # made without a gradient, they are no use where one is wanted
    if known is not None and key in known:
        return known[key][1]
    every = torch.tensordot(_G.to(weight.dtype), weight, ([1], [2])).flatten(0, 1).unsqueeze(2)
    every = every.contiguous(memory_format=torch.channels_last)
    kernels = every.detach(), *every.chunk(_POINTS)
    if known is not None:
        known[key] = weight, kernels  # the weight too: while it is kept, no other has its id
    return kernels


def _row_tiles(x: Tensor) -> Tensor:
    """(N, C, H, W) to a view of eight rows for each four, (N, Q, W, C, 8)."""
    n, c, height, width = x.shape
    padded = x.new_zeros(n, height + _KERNEL - 1, width, c)
    padded[:, _KERNEL // 2 : _KERNEL // 2 + height] = x.permute(0, 2, 3, 1)
    return padded.unfold(1, _POINTS, _ROWS)


def _by_group(matrix: Tensor, tiles: Tensor) -> Tensor:
    """(J, 8 or 4) of (N, Q, W, C, 8 or 4) to (J, N, C, Q, W), each channels last."""
    tiles = tiles.movedim(4, 0)
    product = matrix.to(tiles.dtype) @ tiles.reshape(len(tiles), -1)
    return product.unflatten(1, tiles.shape[1:]).permute(0, 1, 4, 2, 3)


class _RowTiles(torch.autograd.Function):
    """x (N, C, H, W), H a multiple of 4, and the kernels to (N, O, H, W).

    All groups in one convolution without gradient, and one by one in the backward pass: so oneDNN is fastest. It keeps
    x, not the tiles made of it, which are twice as large.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: Tensor, *each: Tensor) -> Tensor:
        ctx.save_for_backward(x, *each)
        tiles = _B_T.to(x.dtype) @ _row_tiles(x).transpose(3, 4)  # (N, Q, W, 8, C)
        products = F.conv2d(tiles.flatten(3).permute(0, 3, 1, 2), kernels, padding=(0, _KERNEL // 2), groups=_POINTS)
        products = products.permute(0, 2, 3, 1).unflatten(3, (_POINTS, -1))
        y = _A_T.to(x.dtype) @ products  # (N, Q, W, 4, O)
        # No view of another tensor leaves a function: it could not be changed in place afterwards.
        n, q, width, _, out_channels = y.shape
        out = torch.empty((n, out_channels, q * _ROWS, width), dtype=y.dtype, memory_format=torch.channels_last)
        out.permute(0, 2, 3, 1).unflatten(1, (q, _ROWS)).copy_(y.transpose(2, 3))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *each = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[0], any(ctx.needs_input_grad[2:]), False]
        tiles = _by_group(_B_T, _row_tiles(x))
        grad_products = _by_group(_A_T.T, grad.permute(0, 2, 3, 1).unflatten(1, (-1, _ROWS)).movedim(2, 4))
        grads = [
            torch.ops.aten.convolution_backward(
                *group, None, [1, 1], [0, _KERNEL // 2], [1, 1], False, [0, 0], 1, wanted
            )
            for group in zip(grad_products, tiles, each, strict=True)
        ]
        grad_x = _add_tiles(torch.stack([part for part, _, _ in grads]), x.shape[2]) if wanted[0] else None
        return grad_x, None, *(part for _, part, _ in grads)


def _add_tiles(grads: Tensor, height: int) -> Tensor:
    """The adjoint of B^T and ``_row_tiles``: (8, N, C, Q, W) to (N, C, H, W)."""
    rows = grads.permute(0, 1, 3, 4, 2)
    rows = (_B_T.T.to(rows.dtype) @ rows.flatten(1)).unflatten(1, rows.shape[1:])
    # Each tile's last four rows are the first four of the next one.
    first, last = rows.permute(1, 2, 0, 3, 4).split(_ROWS, 2)  # (N, Q, 4, W, C) each
    padded = F.pad(first, (0, 0, 0, 0, 0, 0, 0, 1)) + F.pad(last, (0, 0, 0, 0, 0, 0, 1, 0))
    return padded.flatten(1, 2)[:, _KERNEL // 2 : _KERNEL // 2 + height].permute(0, 3, 1, 2)
