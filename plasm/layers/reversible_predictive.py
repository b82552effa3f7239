"""The reversible predictive module of CrevNet (Yu, Lu, Easterbrook, Fidler, ICLR 2020).

Shapes: N clips, D channels of one half, V frames of a window, h x w positions. A state of zeros is None.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .folded_conv3d import FoldedConv3d

State = tuple[Tensor, Tensor]


class ReversiblePredictiveModule(nn.Module):
    """A recurrent cell that looks at one half of the features, and a gate that blends what it says into the other.

        h', c', m' = ST-LSTM(a, h, c, m)        g = sigmoid(W_2 * relu(W_1 * h'))        b' = (1 - g) b + g h'

    (Section 3.2.) Given a and the state, b comes back from b'. The next module has the halves exchanged.

    The ST-LSTM is PredRNN's on windows of frames, and its gates see the memory that they rule, too:

        i, f, g = gates of a, h, c              i', f', g' = gates of a, m, c'
        c' = f c + i g                          m' = f' m + i' g'
        o = sigmoid(W_o * [a, h, c', m'])       h' = o tanh(W_1x1 * [c', m'])

    The paper names the ST-LSTM and does not write it out; with these gates, which the authors' code has, eight modules
    have the parameters that are published. Nor does it give the size of W_1 and W_2: they are 1x1 here.

    Args:
        dim: D.
        kernel_frames: Frames that a kernel of the gates spans; 3 x 3 positions in space.
    """

    def __init__(self, dim: int, kernel_frames: int = 3, **dd: Any) -> None:
        super().__init__()
        self.conv_c = FoldedConv3d(3 * dim, 3 * dim, 3, kernel_frames, **dd)
        self.conv_m = FoldedConv3d(3 * dim, 3 * dim, 3, kernel_frames, **dd)
        self.conv_o = FoldedConv3d(4 * dim, dim, 3, kernel_frames, **dd)
        self.conv_last = FoldedConv3d(2 * dim, dim, 1, 1, **dd)
        self.attention = nn.Sequential(
            FoldedConv3d(dim, dim, 1, 1, **dd), nn.ReLU(), FoldedConv3d(dim, dim, 1, 1, **dd)
        )

    def forward(
        self, a: Tensor, b: Tensor, state: State | None = None, m: Tensor | None = None
    ) -> tuple[Tensor, State, Tensor]:
        """One step.

        Args:
            a: The half that the cell sees, (N, D, V, h, w).
            b: The other half.
            state: h and c, (N, D, V, h, w) each; None at the start.
            m: The memory, (N, D, V, h, w); None at the start.

        Returns:
            b', h' and c', m'.
        """
        (h, c), m = self._remember(a, state, m)
        gate = torch.sigmoid(self.attention(h))
        return (1 - gate) * b + gate * h, (h, c), m

    def inverse(self, a: Tensor, b: Tensor, state: State | None = None, m: Tensor | None = None) -> Tensor:
        """What was b, from b' that ``forward`` gave, and all else that it was given."""
        (h, _), _ = self._remember(a, state, m)
        gate = torch.sigmoid(self.attention(h))
        return (b - gate * h) / (1 - gate)

    def _remember(self, a: Tensor, state: State | None, m: Tensor | None) -> tuple[State, Tensor]:
        h, c = (torch.zeros_like(a), torch.zeros_like(a)) if state is None else state
        m = torch.zeros_like(a) if m is None else m
        c = _update(self.conv_c(torch.cat([a, h, c], 1)), c)
        m = _update(self.conv_m(torch.cat([a, m, c], 1)), m)
        o = torch.sigmoid(self.conv_o(torch.cat([a, h, c, m], 1)))
        return (o * torch.tanh(self.conv_last(torch.cat([c, m], 1))), c), m


def _update(gates: Tensor, memory: Tensor) -> Tensor:
    """Of i, f, g, (N, 3 D, V, h, w), and a memory, the memory after."""
    i, f, g = gates.chunk(3, 1)
    return torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
