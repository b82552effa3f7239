"""Causal LSTM and Gradient Highway Unit of PredRNN++ (Wang et al., ICML 2018, arXiv 1804.06300).

Shapes: N clips, D hidden channels, h x w positions. A state of zeros is None.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .convlstm import GateConv, Size, add_gates

_FORGET_BIAS = 1.0


class CausalLSTMCell(nn.Module):
    """Causal LSTM, Eq. 2: the memory m of PredRNN, cascaded behind c.

        i, f, g = gates of x, h and c           c' = f c + i g
        i', f', g' = gates of x, c' and m       m' = f' tanh(W_m * m) + i' g'
        o = tanh(W_x * x + W_h * h + W_c * c' + W_m * m')
        h' = o tanh(W_1x1 * [c', m'])

    As in the authors' code, g' sees x and c' alone, f and f' have 1 added to what they see, and o is a tanh (the paper
    has one too).

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
        self.conv_c = GateConv(dim, 3 * dim, kernel_size, size, **dd)
        self.conv_m = GateConv(dim, 3 * dim, kernel_size, size, **dd)
        # i', g', f' and o of the new c, in the order of the code whose weights this layer loads.
        self.conv_c2m = GateConv(dim, 4 * dim, kernel_size, size, **dd)
        self.conv_om = GateConv(dim, dim, kernel_size, size, **dd)
        self.conv_last = nn.Conv2d(2 * dim, dim, 1, bias=False, **dd)
        self.dim = dim

    def project(self, x: Tensor) -> Tensor:
        """What the gates take from the input alone: (N, in_dim, h, w) -> (N, 7 D, h, w), of many frames at once."""
        return self.conv_x(x)

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
        h, c = (None, None) if state is None else state
        x_c, x_m, x_o = gates.split([3 * self.dim, 3 * self.dim, self.dim], 1)
        from_h = self.conv_h.of_state(h, gates)
        h_c, h_o = (None, None) if from_h is None else from_h.split([3 * self.dim, self.dim], -3)
        i, f, g = add_gates(x_c, h_c, self.conv_c.of_state(c, gates)).chunk(3, 1)
        c_next = torch.sigmoid(i) * torch.tanh(g)
        if c is not None:
            c_next = torch.sigmoid(f + _FORGET_BIAS) * c + c_next

        x_i, x_f, x_g = x_m.chunk(3, 1)
        c_i, c_g, c_f, c_o = self.conv_c2m(c_next).chunk(4, 1)
        from_m = self.conv_m.of_state(m, gates)
        m_i, m_f, m_m = (None, None, None) if from_m is None else from_m.chunk(3, -3)
        m_next = torch.sigmoid(add_gates(x_i, m_i, c_i)) * torch.tanh(x_g + c_g)
        if m_m is not None:
            m_next = torch.sigmoid(add_gates(x_f, m_f, c_f) + _FORGET_BIAS) * torch.tanh(m_m) + m_next

        o = torch.tanh(add_gates(x_o, h_o, c_o, self.conv_om(m_next)))
        return o * torch.tanh(self.conv_last(torch.cat([c_next, m_next], 1))), c_next, m_next

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None, m: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``step`` of an input (N, in_dim, h, w)."""
        return self.step(self.project(x), state, m)


class GradientHighwayUnit(nn.Module):
    """GHU, Eq. 3: a short way for gradients, from step to step between the first layer and the second.

        p = tanh(W_px * x + W_pz * z)       s = sigmoid(W_sx * x + W_sz * z)       z' = s p + (1 - s) z

    Its weights start within .001 of 0, as in the authors' code.

    Args:
        dim: D, of x and z.
        kernel_size: Side of the (odd) kernels.
        size: (h, w) for LayerNorm after each convolution; None leaves it out.
    """

    def __init__(self, dim: int, kernel_size: int = 5, size: Size = None, **dd: Any) -> None:
        super().__init__()
        self.conv_x = GateConv(dim, 2 * dim, kernel_size, size, **dd)
        self.conv_z = GateConv(dim, 2 * dim, kernel_size, size, **dd)
        for part in (self.conv_x, self.conv_z):
            nn.init.uniform_(part.conv.weight, -0.001, 0.001)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """X and z (None at the start), (N, D, h, w) each, to the next z."""
        p, s = add_gates(self.conv_x(x), self.conv_z.of_state(z, x)).chunk(2, 1)
        p, s = torch.tanh(p), torch.sigmoid(s)
        return s * p if z is None else s * p + (1 - s) * z
