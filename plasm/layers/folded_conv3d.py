"""A convolution over windows of frames, with weights of four dimensions."""

from typing import Any

import torch
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
        frames, middle = x.shape[2], self.kernel_frames // 2
        weight = self.weight.unflatten(1, (self.kernel_frames, -1))  # (O, frames of the kernel, C, h, w)
        if frames > middle + 1:
            padding = (middle, self.kernel_size[0] // 2, self.kernel_size[1] // 2)
            return F.conv3d(x, weight.transpose(1, 2), self.bias, (1, *self.stride), padding)
        # Where every frame sees all others, the frames are as good as channels; a 2D convolution is faster.
        if frames == 1:
            return F.conv2d(x.squeeze(2), weight[:, middle], self.bias, self.stride, self.padding).unsqueeze(2)
        seen = torch.stack([weight.narrow(1, middle - place, frames) for place in range(frames)], 1)
        seen = seen.transpose(2, 3).flatten(2, 3).flatten(0, 1)  # (O * V, C * V, h, w)
        bias = None if self.bias is None else self.bias.repeat_interleave(frames)
        return F.conv2d(x.flatten(1, 2), seen, bias, self.stride, self.padding).unflatten(1, (-1, frames))
