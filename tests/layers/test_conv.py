import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plasm.layers import ConvBlock, UpsampleBlock
from plasm.layers.conv import init_conv_, pad_to_multiple, run_block


def test_padding_to_a_multiple_compiles_for_training_at_any_size() -> None:
    pad = torch.compile(lambda x: 2 * pad_to_multiple(x, 4), dynamic=True, backend="aot_eager")
    for height, width in ((7, 9), (8, 10), (12, 12)):
        x = torch.rand(2, 3, height, width, requires_grad=True)
        padded = pad(x)
        assert padded.shape == (2, 3, -(-height // 4) * 4, -(-width // 4) * 4)
        torch.testing.assert_close(padded[..., :height, :width], 2 * x)
        torch.testing.assert_close(padded.sum(), 2 * x.sum())
        padded.sum().backward()
        assert (x.grad == 2).all()


@pytest.mark.parametrize(
    ("conv", "fan_in"),
    [
        (nn.Conv2d(64, 128, 3), 64 * 9),
        (nn.Conv2d(256, 256, 7, groups=256), 49),
        (nn.Conv2d(256, 256, 1, groups=2), 128),
        (nn.ConvTranspose2d(64, 64, 3), 64 * 9),
    ],
)
def test_kaiming_takes_the_fan_in_of_one_group(conv: nn.Conv2d | nn.ConvTranspose2d, fan_in: int) -> None:
    init_conv_(conv)
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (1 + 0.2**2) / fan_in), rel=0.03)
    assert conv.bias is not None
    assert (conv.bias == 0).all()


@pytest.mark.parametrize("upsample", ["transposed", "pixelshuffle"])
@pytest.mark.parametrize("stride", [1, 2])
def test_upsampling_multiplies_the_size(upsample: str, stride: int) -> None:
    block = UpsampleBlock(8, stride, upsample)  # type: ignore[arg-type]
    assert block(torch.randn(2, 8, 5, 3)).shape == (2, 8, 5 * stride, 3 * stride)
    assert isinstance(block.conv, nn.ConvTranspose2d) == (upsample == "transposed")


def test_transposed_block_is_the_adjoint_of_the_encoders_convolution() -> None:
    block = UpsampleBlock(4, 2).double()
    x, y = torch.randn(1, 4, 5, 5, dtype=torch.float64), torch.randn(1, 4, 10, 10, dtype=torch.float64)
    assert block.conv.bias is not None
    up = block.conv(x) - block.conv.bias[:, None, None]
    down = F.conv2d(y, block.conv.weight, stride=2, padding=1)
    torch.testing.assert_close((up * y).sum(), (x * down).sum())


def test_conv_block_is_conv_norm_act() -> None:
    block = ConvBlock(16)
    x = torch.randn(2, 16, 9, 9)
    y = F.group_norm(F.conv2d(x, block.conv.weight, block.conv.bias, padding=3), 8)
    torch.testing.assert_close(block(x), torch.where(y > 0, y, 0.2 * y))


def test_unknown_upsampling_is_an_error() -> None:
    with pytest.raises(ValueError, match="'bilinear'"):
        UpsampleBlock(8, upsample="bilinear")  # type: ignore[arg-type]


class Nested(nn.Module):
    """A block that has one, and both may be run again."""

    def __init__(self, recompute: bool) -> None:
        super().__init__()
        self.recompute = recompute
        self.inner = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Tanh())
        self.norm = nn.BatchNorm2d(3, momentum=0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(run_block(self.inner, x, recompute=self.recompute)).tanh()


@pytest.mark.parametrize("compiled", [False, True])
def test_a_block_that_runs_again_counts_once_in_statistics(compiled: bool) -> None:
    x = torch.rand(4, 3, 5, 5)
    states, gradients = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        block = Nested(recompute)
        buffers = dict(block.named_buffers())

        def step(x: Tensor, block: Nested = block, recompute: bool = recompute) -> Tensor:
            return run_block(block, x, recompute=recompute)

        run = torch.compile(step, backend="aot_eager") if compiled and recompute else step
        for _ in range(2):
            run(x).square().sum().backward()
        assert all(buffer is buffers[key] for key, buffer in block.named_buffers())
        states.append(block.state_dict())
        gradients.append([parameter.grad for parameter in block.parameters()])
    torch.testing.assert_close(states[1], states[0])
    torch.testing.assert_close(gradients[1], gradients[0])
    assert states[1]["norm.num_batches_tracked"] == 2


def test_blocks_that_run_again_in_several_threads_keep_their_statistics() -> None:
    block = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Tanh())
    buffers = dict(block.named_buffers())
    losses = [run_block(block, torch.rand(4, 3, 5, 5), recompute=True).sum() for _ in range(16)]
    expected = {key: buffer.clone() for key, buffer in buffers.items()}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda loss: loss.backward(), losses))
    for key, buffer in block.named_buffers():
        assert buffer is buffers[key]
        assert torch.equal(buffer, expected[key])
