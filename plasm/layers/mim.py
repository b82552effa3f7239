"""The two blocks of MIM, Memory In Memory (Wang et al., CVPR 2019, arXiv 1811.07490).

Shapes: N clips, D hidden channels, h x w positions. A state of zeros is None.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .convlstm import GateConv, add_gates

_FORGET_BIAS = 1.0
States = tuple[Tensor, Tensor]


class MIMMemory(nn.Module):
    """MIM-N or MIM-S, Eq. 2 and 3: a ConvLSTM with peepholes, whose gates on c have a weight for each position.

        i = sigmoid(W_x * x + W_h * h + w_i c)      f = sigmoid(W_x * x + W_h * h + w_f c + 1)
        g = tanh(W_x * x + W_h * h)                 c' = f c + i g
        o = sigmoid(W_x * x + W_h * h + w_o c')     h' = o tanh(c')

    Where the text convolves c, the authors' code has these weights, and so has this layer.

    Args:
        in_dim: Channels of x.
        dim: D.
        size: (h, w).
        kernel_size: Side of the (odd) kernels.
        layer_norm: Whether LayerNorm follows each convolution.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        size: tuple[int, int],
        kernel_size: int = 5,
        layer_norm: bool = False,
        **dd: Any,
    ) -> None:
        super().__init__()
        norm_size = size if layer_norm else None
        self.conv_x = GateConv(in_dim, 4 * dim, kernel_size, norm_size, **dd)
        self.conv_h = GateConv(dim, 4 * dim, kernel_size, norm_size, **dd)
        self.weight_c = nn.Parameter(torch.zeros(2 * dim, *size, **dd))
        self.weight_o = nn.Parameter(torch.zeros(dim, *size, **dd))

    def forward(self, x: Tensor | None, h: Tensor | None, c: Tensor | None, like: Tensor) -> States:
        """One step.

        Args:
            x: (N, in_dim, h, w), or None for zeros.
            h: (N, D, h, w), or None for zeros.
            c: (N, D, h, w), or None for zeros.
            like: Any tensor of N clips on the right device, for a step of zeros alone.

        Returns:
            h and c.
        """
        terms = [part for part in (self.conv_x.of_state(x, like), self.conv_h.of_state(h, like)) if part is not None]
        zeros = like.new_zeros(like.shape[0], 4 * len(self.weight_o), *self.weight_o.shape[1:])
        i, g, f, o = (add_gates(*terms).expand_as(zeros) if terms else zeros).chunk(4, 1)
        if c is not None:
            w_i, w_f = self.weight_c.chunk(2, 0)
            i, f = i + w_i * c, f + w_f * c
        c_next = torch.sigmoid(i) * torch.tanh(g)
        if c is not None:
            c_next = torch.sigmoid(f + _FORGET_BIAS) * c + c_next
        return torch.sigmoid(o + self.weight_o * c_next) * torch.tanh(c_next), c_next


class MIMBlock(nn.Module):
    """A layer of MIM from the second on: an ST-LSTM whose forget gate is the stationary memory, MIM-S, Eq. 1.

        T, S = MIM-S(D, c, S)                       c' = T + i g
        i, g = gates of x and h, o of x, h and m    m' = f' m + i' g',  of x and m
        h' = o tanh(W_1x1 * [c', m'])

    D comes from MIM-N, a ``MIMMemory`` of the difference between steps. The input's gates of c and of m are the same
    (four convolutions of x, not seven), as in the authors' code.

    Args:
        dim: D, of the layer below too.
        size: (h, w).
        kernel_size: Side of the (odd) kernels.
        layer_norm: Whether LayerNorm follows each convolution but the 1x1.
    """

    def __init__(
        self, dim: int, size: tuple[int, int], kernel_size: int = 5, layer_norm: bool = False, **dd: Any
    ) -> None:
        super().__init__()
        norm_size = size if layer_norm else None
        self.conv_x = GateConv(dim, 4 * dim, kernel_size, norm_size, **dd)
        self.conv_h = GateConv(dim, 3 * dim, kernel_size, norm_size, **dd)
        self.conv_m = GateConv(dim, 4 * dim, kernel_size, norm_size, **dd)
        self.stationary = MIMMemory(dim, dim, size, kernel_size, layer_norm, **dd)
        self.conv_last = nn.Conv2d(2 * dim, dim, 1, bias=False, **dd)

    def forward(
        self, x: Tensor, difference: Tensor | None, state: tuple[Tensor, Tensor, Tensor] | None, m: Tensor
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """One step.

        Args:
            x: (N, D, h, w).
            difference: Of MIM-N, (N, D, h, w); None at the start.
            state: h, c and the stationary memory, (N, D, h, w) each; None at the start.
            m: The memory of the layer below, (N, D, h, w).

        Returns:
            The state, and m.
        """
        h, c, s = (None, None, None) if state is None else state
        x_i, x_g, x_f, x_o = self.conv_x(x).chunk(4, 1)
        from_h = self.conv_h.of_state(h, x)
        h_i, h_g, h_o = (None, None, None) if from_h is None else from_h.chunk(3, -3)
        m_i, m_g, m_f, m_o = self.conv_m(m).chunk(4, 1)
        m_next = torch.sigmoid(x_i + m_i) * torch.tanh(x_g + m_g)
        m_next = torch.sigmoid(x_f + m_f + _FORGET_BIAS) * m + m_next
        t, s = self.stationary(difference, c, s, x)
        c_next = t + torch.sigmoid(add_gates(x_i, h_i)) * torch.tanh(add_gates(x_g, h_g))
        o = torch.sigmoid(add_gates(x_o, h_o) + m_o)
        h_next = o * torch.tanh(self.conv_last(torch.cat([c_next, m_next], 1)))
        return (h_next, c_next, s), m_next
