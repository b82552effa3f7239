"""The SpatioTemporal Attention based Memory of STAM (Chang et al., IEEE Transactions on Multimedia, 2022).

Shapes: N clips, D hidden channels, V frames that a step works on, h x w positions.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .folded_conv3d import FoldedConv3d

_FORGET_BIAS = 1.0


class _GateConv3d(nn.Module):
    """A 3D convolution of gates, and LayerNorm over (channels, V, h, w), with weights for each position."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        size: tuple[int, int, int],
        kernel_size: int,
        kernel_frames: int,
        **dd: Any,
    ) -> None:
        super().__init__()
        self.conv = FoldedConv3d(in_dim, out_dim, kernel_size, kernel_frames, **dd)
        self.norm = nn.LayerNorm([out_dim, *size], **dd)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_dim, V, h, w) to (N, out_dim, V, h, w)."""
        return self.norm(self.conv(x))


class STAMCell(nn.Module):
    """STAM: an ST-LSTM of 3D convolutions, whose forget gates attend over the memories of earlier steps.

        i, f, g = gates of x and h                          i', f', g' = gates of x and m
        c' = i g + f attend(f, C)                           m' = i' g' + f' attend(f', M)
        o = sigmoid(W_x * x + W_h * h + W_o * [c', m'])     h' = o tanh(W_1 * [c', m'])
        attend(q, memories) = sum_j softmax_j(q memory_j) memory_j, of each channel and position alone

    f and f' have 1 added to what they see. C are the c of earlier steps, M the m of the cells before this one, of all
    layers. In the authors' code every entry of C is the c of now, so that attention gives back c; that is the default
    here, as their published figures are those of their code, and ``as_paper`` attends over the c of earlier steps.

    Args:
        in_dim: Channels of x.
        dim: D.
        size: (V, h, w), for the norms have a weight for each position.
        kernel_size: Side of the (odd) kernels in space.
        kernel_frames: Frames that they span, an odd number.
        as_paper: See above.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        size: tuple[int, int, int],
        kernel_size: int = 3,
        kernel_frames: int = 3,
        as_paper: bool = False,
        **dd: Any,
    ) -> None:
        super().__init__()
        self.dim, self.as_paper = dim, as_paper
        self.conv_x = _GateConv3d(in_dim, 7 * dim, size, kernel_size, kernel_frames, **dd)
        self.conv_h = _GateConv3d(dim, 4 * dim, size, kernel_size, kernel_frames, **dd)
        self.conv_m = _GateConv3d(dim, 3 * dim, size, kernel_size, kernel_frames, **dd)
        self.conv_o = _GateConv3d(2 * dim, dim, size, kernel_size, kernel_frames, **dd)
        self.conv_last = FoldedConv3d(2 * dim, dim, 1, 1, **dd)

    def forward(
        self, x: Tensor, h: Tensor, past_c: Sequence[Tensor], past_m: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step.

        Args:
            x: (N, in_dim, V, h, w).
            h: (N, D, V, h, w).
            past_c: C, (N, D, V, h, w) each, the newest last. Without ``as_paper`` the others change nothing.
            past_m: M alike; the last is the m that comes in.

        Returns:
            The next h, c and m, (N, D, V, h, w) each.
        """
        x_c, x_m, x_o = self.conv_x(x).split([3 * self.dim, 3 * self.dim, self.dim], 1)
        h_c, h_o = self.conv_h(h).split([3 * self.dim, self.dim], 1)
        c = _remember(x_c + h_c, past_c if self.as_paper else past_c[-1:])
        m = _remember(x_m + self.conv_m(past_m[-1]), past_m)
        memory = torch.cat([c, m], 1)
        o = torch.sigmoid(x_o + h_o + self.conv_o(memory))
        return o * torch.tanh(self.conv_last(memory)), c, m


def _remember(gates: Tensor, past: Sequence[Tensor]) -> Tensor:
    """Of i, f, g, (N, 3 D, V, h, w), and past memories, (N, D, V, h, w) each, the memory after."""
    i, f, g = gates.chunk(3, 1)
    f = torch.sigmoid(f + _FORGET_BIAS)
    return torch.sigmoid(i) * torch.tanh(g) + f * _attend(f, past)


def _attend(query: Tensor, memories: Sequence[Tensor]) -> Tensor:
    if len(memories) == 1:
        # A softmax of one is 1.
        return memories[0]
    stacked = torch.stack(list(memories))
    return (torch.softmax(query * stacked, 0) * stacked).sum(0)
