"""Gated spatiotemporal attention (gSTA), of SimVP v2 (Tan et al., arXiv 2211.12509, Section 3.3).

Shapes: N clips, C = dim channels, H x W positions.
"""

import torch
from torch import Tensor

from .large_kernel_attention import LargeKernelAttention


class GatedSpatiotemporalAttention(LargeKernelAttention):
    """x + conv1x1(sigmoid(g) * f), with f and g the halves of what large kernels see of gelu(conv1x1(x)).

    The channels are those of all frames of a clip, so that mixing channels mixes times.

    Args:
        dim: Channels in and out.
        kernel_size: Side of the kernel that is taken apart, 21.
        dilation: See ``LargeKernelAttention``.
        device: Device of the parameters.
        dtype: Data type of the parameters.
    """

    features_per_channel = 2

    def gate(self, u: Tensor, a: Tensor) -> Tensor:
        """U (N, C, H, W), which plays no part, and f and g (N, 2 C, H, W) -> (N, C, H, W)."""
        f, g = a.chunk(2, 1)
        return torch.sigmoid(g) * f
