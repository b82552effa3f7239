import pytest
import torch
import torch.nn.functional as F

from plasm.layers.folded_conv3d import FoldedConv3d


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel_size", "kernel_frames"), [(1, 1), (3, 1), (3, 3), (3, 5), (5, 3)])
@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_it_is_a_3d_convolution(frames: int, kernel_size: int, kernel_frames: int, stride: int, bias: bool) -> None:
    torch.manual_seed(0)
    conv = FoldedConv3d(3, 4, kernel_size, kernel_frames, stride, bias).double()
    x = torch.randn(2, 3, frames, 6, 8, dtype=torch.float64, requires_grad=True)
    # Channels of a frame of the kernel lie together.
    kernel = torch.stack(conv.weight.split(3, 1), 2)
    padding = kernel_frames // 2, kernel_size // 2, kernel_size // 2
    expected = F.conv3d(x, kernel, conv.bias, (1, stride, stride), padding)
    y = conv(x)
    torch.testing.assert_close(y, expected)
    grad = torch.randn_like(y)
    wanted = [x, *conv.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(y, wanted, grad), torch.autograd.grad(expected, wanted, grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
