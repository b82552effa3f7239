"""The Motion-Aware Unit (Chang et al., NeurIPS 2021, openreview qwtfY-3ibt7).

Shapes: N clips, D hidden channels, h x w positions, tau steps that are looked back on.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .convlstm import GateConv


class MAUCell(nn.Module):
    """MAU, Eq. 1 to 7: attention over the last tau motions, then two gates that mix motion T and appearance S.

        q_j = <S_j, W_s * S> / sqrt(D h w), j over the last tau steps           a = softmax(q)
        T_att = sum_j a_j T_j               u = sigmoid(W_f * T)                T_AMI = u T + (1 - u) T_att
        g_t, t, s' = W_t * T_AMI            g_s, t', s = W_s * S
        T' = sigmoid(g_t) t + (1 - sigmoid(g_t)) t'
        S' = sigmoid(g_s) s + (1 - sigmoid(g_s)) s'   (+ S, where the mode is "residual")

    Each convolution has a bias, and LayerNorm over (channels, h, w) behind it, as in the authors' code.

    Args:
        in_dim: Channels of T and of the T_j. (They are D in every configuration that runs.)
        dim: D.
        size: (h, w).
        kernel_size: Side of the (odd) kernels.
        mode: "normal" or "residual".

    Raises:
        ValueError: If ``mode`` is neither.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        size: tuple[int, int],
        kernel_size: int = 5,
        mode: Literal["normal", "residual"] = "normal",
        **dd: Any,
    ) -> None:
        super().__init__()
        if mode not in ("normal", "residual"):
            raise ValueError(f'the mode of a MAUCell is "normal" or "residual", got {mode!r}')
        self.conv_t = GateConv(in_dim, 3 * dim, kernel_size, size, bias=True, **dd)
        self.conv_t_next = GateConv(in_dim, dim, kernel_size, size, bias=True, **dd)
        self.conv_s = GateConv(dim, 3 * dim, kernel_size, size, bias=True, **dd)
        self.conv_s_next = GateConv(dim, dim, kernel_size, size, bias=True, **dd)
        self.residual = mode == "residual"

    def project(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """What is made of the appearance alone: (N, D, h, w) to (N, 3 D, h, w) and (N, D, h, w), of many at once."""
        return self.conv_s(s), self.conv_s_next(s)

    def step(
        self,
        t: Tensor,
        s: Tensor,
        projected: tuple[Tensor, Tensor],
        past_t: Sequence[Tensor],
        past_s: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """One step.

        Args:
            t: T, (N, D, h, w).
            s: S, (N, D, h, w).
            projected: Of ``project``.
            past_t: The last tau T before this step, T included, the oldest first; zeros before the first.
            past_s: As many S of the steps before this one.

        Returns:
            The next T and S.
        """
        from_s, query = projected
        stacked_s, stacked_t = torch.stack(list(past_s), 1), torch.stack(list(past_t), 1)  # (N, tau, D, h, w)
        # A sum of so many loses its digits in half precision, and in float16 it is infinite.
        wide = torch.promote_types(query.dtype, torch.float32)
        scores = (stacked_s * query.unsqueeze(1)).flatten(2).sum(2, dtype=wide) / math.sqrt(math.prod(query.shape[1:]))
        attended = (stacked_t * torch.softmax(scores, 1)[..., None, None, None]).sum(1).to(t.dtype)
        keep = torch.sigmoid(self.conv_t_next(t))
        fused = t * keep + (1 - keep) * attended
        t_gate, t_t, t_s = self.conv_t(fused).chunk(3, 1)
        s_gate, s_t, s_s = from_s.chunk(3, 1)
        t_gate, s_gate = torch.sigmoid(t_gate), torch.sigmoid(s_gate)
        s_next = s_gate * s_s + (1 - s_gate) * t_s
        return t_gate * t_t + (1 - t_gate) * s_t, s_next + s if self.residual else s_next

    def forward(
        self, t: Tensor, s: Tensor, past_t: Sequence[Tensor], past_s: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """``step`` of what ``project`` makes of ``s``."""
        return self.step(t, s, self.project(s), past_t, past_s)
