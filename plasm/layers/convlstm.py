"""The convolutional LSTM, and the convolution of gates that every recurrent cell here is made of.

Shapes: N clips, D hidden channels, h x w positions. A state of zeros is None: its convolutions are not computed.
"""

from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Size: TypeAlias = tuple[int, int] | None
"""(h, w) of a layer whose norm has a weight for each position; None where there is no such norm."""


def add_gates(first: Tensor, *others: Tensor | None) -> Tensor:
    """Add what there is: None stands for zeros."""
    for other in others:
        if other is not None:
            first = first + other
    return first


class GateConv(nn.Module):
    """A convolution that keeps the size, without bias by default; after it, optionally, LayerNorm over (C, h, w).

    Args:
        in_dim: Channels in.
        out_dim: Channels out: those of all gates, one after the other.
        kernel_size: Side of the (odd) kernel.
        size: (h, w) of the LayerNorm, which has a weight and a bias for each channel and position; None leaves it out.
        bias: Whether the convolution has one.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel_size: int,
        size: Size = None,
        bias: bool = False,
        **dd: Any,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_dim, out_dim, kernel_size, padding=kernel_size // 2, bias=bias, **dd)
        self.norm = None if size is None else nn.LayerNorm([out_dim, *size], **dd)
        self.has_bias, self.norm_shape = bias, (out_dim, *(size or ()))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_dim, h, w) -> (N, out_dim, h, w)."""
        x = self.conv(x)
        return x if self.norm is None else self.norm(x)

    def of_state(self, x: Tensor | None, like: Tensor) -> Tensor | None:
        """What ``forward`` gives of a state; of None, which is zeros, what LayerNorm makes of them: (1, out_dim, h, w).

        Args:
            x: (N, in_dim, h, w), or None.
            like: Any tensor of the right device and data type.
        """
        if x is not None:
            return self(x)
        if self.has_bias:
            raise ValueError("a convolution with a bias has no shortcut for a state of zeros")
        # By the module, whose weights may lie elsewhere until it is called.
        return None if self.norm is None else self.norm(like.new_zeros(1, *self.norm_shape))


class ConvLSTMCell(nn.Module):
    """ConvLSTM of Shi et al. (NeurIPS 2015, arXiv 1506.04214), Eq. 3, without its peepholes.

        i = sigmoid(W_xi * x + W_hi * h)        f = sigmoid(W_xf * x + W_hf * h)
        g = tanh(W_xg * x + W_hg * h)           o = sigmoid(W_xo * x + W_ho * h)
        c' = f c + i g                          h' = o tanh(c')

    The paper's gates see c too, through a weight for each position ("peephole"); OpenSTL's do not, and nor do these.

    Args:
        in_dim: Channels of x.
        dim: D.
        kernel_size: Side of the (odd) kernels.
        size: (h, w) for LayerNorm after each convolution; None leaves it out.
    """

    def __init__(self, in_dim: int, dim: int, kernel_size: int = 5, size: Size = None, **dd: Any) -> None:
        super().__init__()
        self.conv_x = GateConv(in_dim, 4 * dim, kernel_size, size, **dd)
        self.conv_h = GateConv(dim, 4 * dim, kernel_size, size, **dd)

    def project(self, x: Tensor) -> Tensor:
        """What the gates take from the input alone: (N, in_dim, h, w) -> (N, 4 D, h, w), of many frames at once."""
        return self.conv_x(x)

    def step(self, gates: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """One step.

        Args:
            gates: Of ``project``, (N, 4 D, h, w).
            state: h and c, (N, D, h, w) each; None at the start.

        Returns:
            h and c.
        """
        h, c = (None, None) if state is None else state
        i, f, g, o = add_gates(gates, self.conv_h.of_state(h, gates)).chunk(4, 1)
        c_next = torch.sigmoid(i) * torch.tanh(g)
        if c is not None:
            c_next = torch.sigmoid(f) * c + c_next
        return torch.sigmoid(o) * torch.tanh(c_next), c_next

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """``step`` of an input (N, in_dim, h, w)."""
        return self.step(self.project(x), state)
