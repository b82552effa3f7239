"""The Eidetic 3D LSTM of E3D-LSTM (Wang et al., ICLR 2019, openreview B1lKS2AqtX).

Shapes: N clips, D hidden channels, h x w positions, W frames of a window, S = W h w.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import attend

_FORGET_BIAS = 1.0


class WindowConv(nn.Module):
    """A 3D convolution that sees a whole window at once, W frames, and gives one frame: a 2D one over W * C channels.

    In the authors' code the kernel is 2 x 5 x 5 over windows of two frames, and its output is padded to two frames
    again; in OpenSTL's, it is repeated. Either way the gates see the window through one such sum; here the frames are
    repeated only where something makes them differ: a LayerNorm over them, of (h, w) and with weights for each frame.
    What a stride skips is repeated.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        window: int,
        kernel_size: int = 5,
        size: tuple[int, int] | None = None,
        stride: int = 1,
        **dd: Any,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            window * in_dim, out_dim, kernel_size, stride=stride, padding=kernel_size // 2, bias=False, **dd
        )
        self.norm = None if size is None else nn.LayerNorm([out_dim, window, *size], **dd)
        self.window, self.stride = window, stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, W * C, h, w), channels of a frame together, to (N, out_dim, 1 or W, h, w)."""
        y = self.conv(x)
        if self.stride != 1:
            # What the stride skipped is repeated.
            y = F.interpolate(y, size=x.shape[-2:], mode="nearest")
        y = y.unsqueeze(2)
        return y if self.norm is None else self.norm(y.expand(-1, -1, self.window, -1, -1))


class Eidetic3DLSTMCell(nn.Module):
    """E3D-LSTM, Eq. 1 to 4: an ST-LSTM over windows of frames, that recalls its earlier cells by attention.

        r, i, g = gates of x and h                          i', f', g' = gates of x and m
        c' = LN(c + softmax(r . [c_0 ... c]) [c_0 ... c]) + i g
        m' = f' tanh(W_m * m) + i' g'
        o = sigmoid(tanh(W_x * x + W_h * h + W_c * c' + W_m * m'))
        h' = o tanh(W_1 * [c', m'])

    with keys and values the cells of all steps before, at every position of every frame. (The text has f' m and no tanh
    in o; this is its authors' code.)

    OpenSTL's code departs from this twice, and ``as_openstl`` does as it does, for its weights: its attention takes
    channels-first memory for channels-last (reshapes where it should permute), so that a "position" is D neighbouring
    numbers of one channel; and m is passed on as it came, so that it stays zero for ever.

    torch's fused attention has first derivatives alone; others need ``torch.nn.attention.sdpa_kernel(MATH)``.

    Args:
        in_dim: Channels of a frame of x.
        dim: D.
        size: (h, w), for the norm of c has a weight for each position.
        window: W.
        kernel_size: Side of the (odd) kernels in space.
        layer_norm: Whether LayerNorm follows each convolution but the last.
        stride: Of the convolutions, whose output is then stretched; 1 wherever the system was used.
        as_openstl: See above.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        size: tuple[int, int],
        window: int = 2,
        kernel_size: int = 5,
        layer_norm: bool = False,
        stride: int = 1,
        as_openstl: bool = False,
        **dd: Any,
    ) -> None:
        super().__init__()
        self.dim, self.window, self.as_openstl = dim, window, as_openstl

        def conv(channels: int, out_dim: int) -> WindowConv:
            return WindowConv(channels, out_dim, window, kernel_size, size if layer_norm else None, stride, **dd)

        self.conv_x = conv(in_dim, 7 * dim)
        self.conv_h = conv(dim, 4 * dim)
        self.conv_m = conv(dim, 4 * dim)
        self.conv_new_c = conv(dim, dim)
        self.conv_new_m = conv(dim, dim)
        self.norm_c = nn.LayerNorm([dim, window, *size], **dd)
        self.conv_last = nn.Conv2d(2 * dim, dim, 1, bias=False, **dd)

    def start(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The state before the first frame: h and c, (N, D, W, h, w), and the cells so far, (N, S, D); all zeros.

        Args:
            like: (N, ..., h, w), of the right device and data type.
        """
        zeros = like.new_zeros(like.shape[0], self.dim, self.window, *like.shape[-2:])
        return zeros, zeros, self._rows(zeros)

    def step(
        self, gates: Tensor, state: tuple[Tensor, Tensor, Tensor], m: Tensor
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """One step.

        Args:
            gates: What ``conv_x`` gives of the window, (N, 7 D, 1 or W, h, w).
            state: h and c, (N, D, W, h, w), and the cells of all steps so far, (N, t * S, D).
            m: The memory of the layer below, (N, D, W, h, w).

        Returns:
            The state, with the new cell among those so far, and m.
        """
        h, c, cells = state
        x_c, x_o, x_m = gates.split([3 * self.dim, self.dim, 3 * self.dim], 1)
        x_i, x_g, x_r = x_c.chunk(3, 1)
        h_i, h_g, h_r, h_o = self.conv_h(_flat(h)).chunk(4, 1)
        # A softmax of unscaled scores would lose its digits in half precision; SDPA keeps them.
        recalled = self._recall(torch.sigmoid(x_r + h_r).expand_as(c), cells)
        c_next = self.norm_c(c + recalled) + torch.sigmoid(x_i + h_i) * torch.tanh(x_g + h_g)
        x_i, x_g, x_f = x_m.chunk(3, 1)
        m_i, m_f, m_g, m_m = self.conv_m(_flat(m)).chunk(4, 1)
        m_next = torch.sigmoid(x_f + m_f + _FORGET_BIAS) * torch.tanh(m_m)
        m_next = (m_next + torch.sigmoid(x_i + m_i) * torch.tanh(x_g + m_g)).expand_as(c)
        o = torch.sigmoid(torch.tanh(x_o + h_o + self.conv_new_c(_flat(c_next)) + self.conv_new_m(_flat(m_next))))
        memory = self.conv_last(_frames(torch.cat([c_next, m_next], 1)))
        h_next = o * torch.tanh(memory).unflatten(0, (-1, self.window)).transpose(1, 2)
        return (h_next, c_next, torch.cat([cells, self._rows(c_next)], 1)), m if self.as_openstl else m_next

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor, Tensor] | None = None, m: Tensor | None = None
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """``step`` of a window (N, in_dim, W, h, w); state and memory are zeros by default."""
        state = self.start(x) if state is None else state
        return self.step(self.conv_x(_flat(x)), state, torch.zeros_like(state[0]) if m is None else m)

    def _recall(self, query: Tensor, cells: Tensor) -> Tensor:
        """(N, D, W, h, w) and (N, t * S, D) to (N, D, W, h, w)."""
        # One head, which ONNX wants spelled out.
        q, kv = self._rows(query).unsqueeze(1), cells.to(query.dtype).unsqueeze(1)
        rows = attend(q, kv, kv, scale=1.0).squeeze(1)
        if self.as_openstl:
            return rows.reshape(query.shape)
        return rows.transpose(1, 2).reshape(query.shape)

    def _rows(self, x: Tensor) -> Tensor:
        """(N, D, W, h, w) to (N, S, D): positions, and the channels of each."""
        if self.as_openstl:
            return x.flatten(1).unflatten(1, (-1, self.dim))
        # torch's fused attention needs the numbers of a row beside each other.
        return x.flatten(2).transpose(1, 2).contiguous()


def _flat(x: Tensor) -> Tensor:
    """(N, D, W, h, w) to (N, W * D, h, w), as ``WindowConv`` takes it."""
    return x.transpose(1, 2).flatten(1, 2)


def _frames(x: Tensor) -> Tensor:
    """(N, D, W, h, w) to (N * W, D, h, w)."""
    return x.transpose(1, 2).flatten(0, 1)
