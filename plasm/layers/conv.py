"""The plain convolution blocks of PLA-SM, and the initialisation that all of its convolutions share.

Shapes: N frames or clips, C channels, H x W pixels.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

NEGATIVE_SLOPE = 0.2
"""Slope of every LeakyReLU. The paper gives none."""

QUIET = 0.02
"""Factor of a readout's initial weights: the first forecast is near zero."""

Upsample = Literal["transposed", "pixelshuffle"]

ConvT = TypeVar("ConvT", bound=nn.Conv2d | nn.ConvTranspose2d)


def pad_to_multiple(x: Tensor, multiple: int, mode: str = "constant") -> Tensor:
    """Pad (..., H, W) at the bottom and the right, with zeros by default, until ``multiple`` divides H and W."""
    height, width = x.shape[-2:]
    # Not -width % multiple: torch 2.6 compiles no training step with the remainder of a negative size that varies.
    lacks_width, lacks_height = ((multiple - side % multiple) % multiple for side in (width, height))
    return F.pad(x, (0, lacks_width, 0, lacks_height), mode)


def init_conv_(conv: ConvT) -> ConvT:
    """Kaiming initialisation for LeakyReLU, in place: fan-in, a = 0.2, zero bias (Section IV-B).

    The fan is the fan-in: torch's fan-out does not divide by the groups, so a depthwise layer would start with
    weights sqrt(channels) too small and starve whatever follows it.
    """
    nn.init.kaiming_normal_(conv.weight, a=NEGATIVE_SLOPE, mode="fan_in", nonlinearity="leaky_relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def init_readout_(conv: ConvT) -> ConvT:
    """Initialise a linear output layer in place: as the other layers, and then small.

    No LeakyReLU follows it, and with its gain the first forecasts have twenty times the error of a black one; what
    the first steps then undo is not this layer alone.
    """
    init_conv_(conv)
    with torch.no_grad():
        conv.weight.mul_(QUIET)
    return conv


def run_block(block: nn.Module, *inputs: Any, recompute: bool) -> Any:
    """Run a block; with ``recompute``, keep its inputs alone for the backward pass, and run it again there.

    The running statistics of its BatchNorms are those of one run; torch before 2.9 compiles a block that has some
    without running it again.
    """
    if not (recompute and torch.is_grad_enabled()):
        return block(*inputs)
    # A compiled graph writes buffers in its forward pass alone, and dynamo takes no context of one's own.
    if torch.compiler.is_compiling():
        if _WRITES_TWICE and any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in block.modules()):
            return block(*inputs)
        return checkpoint(block, *inputs, use_reentrant=False)
    return checkpoint(block, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _keep_statistics(block)))


_WRITES_TWICE = torch.__version__ < "2.9"  # By its parts: a TorchVersion, no text.
"""Whether compiled graphs write buffers in the backward pass, too: torch 2.6's do, 2.9's and 2.14's do not."""

_RECOMPUTING = threading.RLock()
"""Backward passes of several threads may run one block again, and a block may have blocks that are run again, too."""


@contextmanager
def _keep_statistics(block: nn.Module) -> Iterator[None]:
    """A context in which a block's BatchNorms write their running statistics into copies, which are thrown away.

    Without any they would save other tensors for the backward pass than in the first run, which torch refuses.
    """
    norms = [part for part in block.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        yield
        return
    with _RECOMPUTING:
        kept = [(norm, name, buffer) for norm in norms for name, buffer in norm.named_buffers(recurse=False)]
        try:
            for norm, name, buffer in kept:
                setattr(norm, name, buffer.clone())
            yield
        finally:
            for norm, name, buffer in kept:
                setattr(norm, name, buffer)


class ConvBlock(nn.Module):
    """Convolution, GroupNorm, LeakyReLU, no skip: the baseline of Table X in place of a ConvNeXt block.

    Args:
        dim: Channels in and out.
        kernel_size: Side of the (odd) kernel; 7 in Table X.
        num_groups: Groups of the GroupNorm.
    """

    def __init__(self, dim: int, kernel_size: int = 7, num_groups: int = 8, **dd: Any) -> None:
        super().__init__()
        self.conv = init_conv_(nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, **dd))
        self.norm = nn.GroupNorm(num_groups, dim, **dd)
        self.act = nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim, H, W) -> (N, dim, H, W)."""
        return self.act(self.norm(self.conv(x)))


class UpsampleBlock(nn.Module):
    """One block of the Decoder (Section III-E): 3x3 transposed convolution, GroupNorm, LeakyReLU.

    The paper describes transposed convolutions, the stride-1 ones too; its authors' code has a plain 3x3 convolution
    followed, at stride 2, by a pixel shuffle. ``upsample`` chooses.

    Args:
        dim: Channels in and out.
        stride: 1, or 2 to double height and width.
        upsample: "transposed" (the text) or "pixelshuffle" (the authors' code).
        num_groups: Groups of the GroupNorm. The paper gives none.

    Raises:
        ValueError: If ``upsample`` is neither.
    """

    def __init__(
        self, dim: int, stride: int = 1, upsample: Upsample = "transposed", num_groups: int = 2, **dd: Any
    ) -> None:
        super().__init__()
        self.conv: nn.Conv2d | nn.ConvTranspose2d
        self.shuffle: nn.Module = nn.Identity()
        if upsample == "transposed":
            conv = nn.ConvTranspose2d(dim, dim, 3, stride=stride, padding=1, output_padding=stride - 1, **dd)
            self.conv = init_conv_(conv)
        elif upsample == "pixelshuffle":
            self.conv = init_conv_(nn.Conv2d(dim, dim * stride**2, 3, padding=1, **dd))
            if stride > 1:
                self.shuffle = nn.PixelShuffle(stride)
        else:
            raise ValueError(f'upsample is "transposed" or "pixelshuffle", got {upsample!r}')
        self.norm = nn.GroupNorm(num_groups, dim, **dd)
        self.act = nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim, H, W) -> (N, dim, stride * H, stride * W)."""
        return self.act(self.norm(self.shuffle(self.conv(x))))
