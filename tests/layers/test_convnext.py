import torch
import torch.nn.functional as F

from plasm.layers import ConvNeXtBlock


def test_block_is_equation_2() -> None:
    block = ConvNeXtBlock(16, kernel_size=5, expansion=3, num_groups=4).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 16, 6, 7, dtype=torch.float64)
    y = F.group_norm(
        F.conv2d(x, block.dwconv.weight, block.dwconv.bias, padding=2, groups=16), 4, block.norm.weight, block.norm.bias
    )
    y = torch.einsum("oi,bihw->bohw", block.pwconv1.weight[..., 0, 0], y) + block.pwconv1.bias[:, None, None]
    y = torch.maximum(y, 0.2 * y)
    y = torch.einsum("oi,bihw->bohw", block.pwconv2.weight[..., 0, 0], y) + block.pwconv2.bias[:, None, None]
    torch.testing.assert_close(block(x), x + y)
    assert block.pwconv1.out_channels == 48
