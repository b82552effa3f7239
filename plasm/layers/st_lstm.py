"""The Spatiotemporal LSTM of PredRNN (Wang et al., NeurIPS 2017; TPAMI 2023, arXiv 2103.09504).

Shapes: N clips, D hidden channels, h x w positions. A state of zeros is None.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .convlstm import GateConv, Size, add_gates

_FORGET_BIAS = 1.0


class SpatioTemporalLSTMCell(nn.Module):
    """ST-LSTM, Eq. 3 of the journal's version: beside c, which goes on in time, a memory m that zigzags.

    m goes up the layers, and from the top of one step to the bottom of the next:

        i, f, g = gates of x and h              i', f', g' = gates of x and m
        c' = f c + i g                          m' = f' m + i' g'
        o = sigmoid(W_xo * x + W_ho * h + W_o * [c', m'])
        h' = o tanh(W_1x1 * [c', m'])

    f and f' have 1 added to what they see, as in the authors' code.

    Args:
        in_dim: Channels of x.
        dim: D.
        kernel_size: Side of the (odd) kernels.
        size: (h, w) for LayerNorm after each convolution but the 1x1; None leaves it out.
    """

    def __init__(self, in_dim: int, dim: int, kernel_size: int = 5, size: Size = None, **dd: Any) -> None:
        super().__init__()
        self.conv_x = GateConv(in_dim, 7 * dim, kernel_size, size, **dd)
        self.conv_h = GateConv(dim, 4 * dim, kernel_size, size, **dd)
        self.conv_m = GateConv(dim, 3 * dim, kernel_size, size, **dd)
        self.conv_o = GateConv(2 * dim, dim, kernel_size, size, **dd)
        self.conv_last = nn.Conv2d(2 * dim, dim, 1, bias=False, **dd)
        self.dim = dim

    def project(self, x: Tensor) -> Tensor:
        """What the gates take from the input alone: (N, in_dim, h, w) -> (N, 7 D, h, w), of many frames at once."""
        return self.conv_x(x)

    def step_increments(
        self, gates: Tensor, state: tuple[Tensor, Tensor] | None, m: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """``step``, and what was added to the two memories: h, c, m, i g, i' g', (N, D, h, w) each."""
        h, c = (None, None) if state is None else state
        x_h, x_m, x_o = gates.split([3 * self.dim, 3 * self.dim, self.dim], 1)
        from_h = self.conv_h.of_state(h, gates)
        h_gates, h_o = (None, None) if from_h is None else from_h.split([3 * self.dim, self.dim], -3)
        delta_c, c = _remember(add_gates(x_h, h_gates), c)
        delta_m, m = _remember(add_gates(x_m, self.conv_m.of_state(m, gates)), m)
        memory = torch.cat([c, m], 1)
        o = add_gates(x_o, h_o, self.conv_o(memory))
        return torch.sigmoid(o) * torch.tanh(self.conv_last(memory)), c, m, delta_c, delta_m

    def step(
        self, gates: Tensor, state: tuple[Tensor, Tensor] | None = None, m: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step.

        Args:
            gates: Of ``project``, (N, 7 D, h, w).
            state: h and c, (N, D, h, w) each; None at the start.
            m: The memory, (N, D, h, w); None at the start.

        Returns:
            h, c and m.
        """
        return self.step_increments(gates, state, m)[:3]

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None, m: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``step`` of an input (N, in_dim, h, w)."""
        return self.step(self.project(x), state, m)


def _remember(gates: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
    """(N, 3 D, h, w) of i, f, g, and a memory, to what is added to it and the new memory."""
    i, f, g = gates.chunk(3, 1)
    delta = torch.sigmoid(i) * torch.tanh(g)
    return delta, delta if memory is None else torch.sigmoid(f + _FORGET_BIAS) * memory + delta
