"""The Temporal Attention Unit (TAU): statical attention within frames, dynamical attention among them.

Paper: Tan et al., CVPR 2023, arXiv 2206.12126, Section 3.2.

Shapes: N clips, C = dim channels, H x W positions.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .large_kernel_attention import LargeKernelAttention


class TemporalAttention(LargeKernelAttention):
    """x + conv1x1(d * s * u), with u = gelu(conv1x1(x)), s what large kernels see of it, and d = sigmoid(mlp(mean(u))).

    The channels are those of all frames of a clip: d, one number a channel, weighs times; s weighs positions.

    Args:
        dim: Channels in and out.
        kernel_size: Side of the kernel that is taken apart, 21.
        dilation: See ``LargeKernelAttention``.
        reduction: The MLP of d is max(dim / reduction, 4) times narrower than ``dim``: OpenSTL's rule, by which it has
            about ``reduction`` units.
    """

    def __init__(self, dim: int, kernel_size: int = 21, dilation: int = 3, reduction: int = 16, **dd: Any) -> None:
        super().__init__(dim, kernel_size, dilation, **dd)
        width = dim // max(dim // reduction, 4)
        self.fc1 = nn.Linear(dim, width, bias=False, **dd)
        self.fc2 = nn.Linear(width, dim, bias=False, **dd)

    def gate(self, u: Tensor, a: Tensor) -> Tensor:
        """U and s (N, C, H, W) -> (N, C, H, W)."""
        dynamical = torch.sigmoid(self.fc2(torch.relu(self.fc1(u.mean((2, 3))))))
        return dynamical[:, :, None, None] * a * u
