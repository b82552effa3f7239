"""A convolution over windows of frames, with weights of four dimensions."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class FoldedConv3d(nn.Conv2d):
    """A 3D convolution that keeps the number of frames; its weight is that of a 2D one over the frames of its kernel.

    torch gives no module with weights of five dimensions the memory format ``channels_last``, which every model here
    can be given.

    Args:
        in_dim: Channels in.
        dim: Channels out.
        kernel_size: Side of the (odd) kernel in space.
        kernel_frames: Frames that it spans, an odd number.
        stride: In space.
        bias: Whether there is one.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        kernel_size: int,
        kernel_frames: int,
        stride: int = 1,
        bias: bool = True,
        **dd: Any,
    ) -> None:
        super().__init__(kernel_frames * in_dim, dim, kernel_size, stride, kernel_size // 2, bias=bias, **dd)
        self.kernel_frames = kernel_frames

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_dim, V, H, W) to (N, dim, V, H / stride, W / stride), of windows of V frames."""
        weight = self.weight.unflatten(1, (self.kernel_frames, -1)).transpose(1, 2)
        padding = (self.kernel_frames // 2, self.kernel_size[0] // 2, self.kernel_size[1] // 2)
        return F.conv3d(x, weight, self.bias, (1, *self.stride), padding)
