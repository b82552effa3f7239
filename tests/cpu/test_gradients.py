from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from plasm.cpu import speed_up
from plasm.cpu.gradients import conv2d, group_norm
from plasm.layers import ConvNeXtBlock

CONVOLUTIONS: dict[str, Callable[[], nn.Conv2d | nn.ConvTranspose2d]] = {
    "plain": lambda: nn.Conv2d(6, 8, 3, 2, 1),
    "no bias": lambda: nn.Conv2d(6, 8, 3, padding=1, bias=False),
    "depthwise 7x7": lambda: nn.Conv2d(6, 6, 7, padding=3, groups=6),
    "depthwise 5x4, uneven padding": lambda: nn.Conv2d(6, 6, (5, 4), padding=(0, 2), groups=6),
    "depthwise, strided": lambda: nn.Conv2d(6, 6, 7, 2, padding=3, groups=6),
    "depthwise, dilated": lambda: nn.Conv2d(6, 6, 5, padding=4, dilation=2, groups=6),
    "depthwise 7x5, dilated by 3": lambda: nn.Conv2d(6, 6, (7, 5), padding=(9, 6), dilation=3, groups=6),
    "depthwise, dilated and smaller": lambda: nn.Conv2d(6, 6, 5, padding=2, dilation=2, groups=6),
    "depthwise, same": lambda: nn.Conv2d(6, 6, 5, padding="same", groups=6),
    "two outputs a group": lambda: nn.Conv2d(6, 12, 5, padding=2, groups=6),
    "reflected padding": lambda: nn.Conv2d(6, 6, 5, padding=2, groups=6, padding_mode="reflect"),
    "transposed": lambda: nn.ConvTranspose2d(6, 8, 3, 2, 1, output_padding=1),
}


def gradients(apply: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    x = x.detach().requires_grad_()
    y = apply(x)
    torch.manual_seed(1)
    # The same whatever y's type and layout.
    grad = torch.randn(y.shape).to(y)
    return (y, *torch.autograd.grad(y, [x, *module.parameters()], grad))


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_is_torchs_and_so_are_its_gradients(name: str, memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    conv = CONVOLUTIONS[name]().double()
    x = torch.randn(3, 6, 9, 11, dtype=torch.float64).contiguous(memory_format=memory_format)
    for ours, torchs in zip(gradients(lambda x: conv2d(conv, x), conv, x), gradients(conv, conv, x), strict=True):
        torch.testing.assert_close(ours, torchs)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_without_gradient_is_torchs(name: str) -> None:
    conv, x = CONVOLUTIONS[name]().double(), torch.randn(3, 6, 9, 11, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(conv2d(conv, x), conv(x))


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("trained", ["all", "bias"])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("size", [(9, 11), (12, 12)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_an_activation_in_place_may_follow_a_convolution(
    name: str, trained: str, bf16: bool, size: tuple[int, int], memory_format: torch.memory_format
) -> None:
    conv = CONVOLUTIONS[name]()
    x = torch.randn(3, 6, *size).contiguous(memory_format=memory_format).requires_grad_(trained == "all")
    conv.weight.requires_grad_(trained == "all")
    wanted = [tensor for tensor in (x, *conv.parameters()) if tensor.requires_grad]
    if not wanted:
        pytest.skip("there is no bias to train")
    found = []
    for apply in (lambda x: conv2d(conv, x), conv):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = F.leaky_relu_(apply(x), 0.1)
        found.append([y, *torch.autograd.grad(y.float().square().sum(), wanted)])
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=3e-2 if bf16 else 1e-4, atol=0.3 if bf16 else 1e-4)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(9, 12), (3, 3), (8, 7)])
def test_in_place_after_a_dilated_convolution(
    size: tuple[int, int], memory_format: torch.memory_format, bias: bool
) -> None:
    conv = nn.Conv2d(6, 6, 5, padding=6, dilation=3, groups=6, bias=bias)
    x = torch.randn(3, 6, *size).to(memory_format=memory_format).requires_grad_()
    found = []
    for apply in (lambda x: conv2d(conv, x), conv):
        y = F.leaky_relu_(apply(x), 0.1)
        found.append([y, *torch.autograd.grad(y.square().sum(), [x, *conv.parameters()])])
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", [6, 32])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_an_activation_in_place_may_follow_a_group_norm(memory_format: torch.memory_format, side: int) -> None:
    norm = nn.GroupNorm(2, 8)
    x = torch.randn(2, 8, side, side).to(torch.bfloat16, memory_format=memory_format).requires_grad_()
    found = []
    for apply in (lambda x: group_norm(norm, x), norm):
        y = F.leaky_relu_(apply(x), 0.1)
        found.append([y, *torch.autograd.grad(y.float().square().sum(), [x, *norm.parameters()])])
    for ours, torchs in zip(*found, strict=True):
        assert (ours - torchs).norm() < 0.02 * torchs.norm()


@pytest.mark.parametrize("dilation", [1, 2])
def test_second_derivatives_of_convolutions(dilation: int) -> None:
    conv = nn.Conv2d(2, 2, (3, 5), padding=(dilation, 2 * dilation), dilation=dilation, groups=2).double()
    x = torch.randn(2, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x, weight, bias: conv2d(conv, x), (x, conv.weight, conv.bias))


def test_forward_mode_differentiation() -> None:
    torch.manual_seed(0)
    block = speed_up(ConvNeXtBlock(8, num_groups=2)).double()
    x, tangent = torch.randn(2, 2, 8, 6, 6, dtype=torch.float64)
    with forward_ad.dual_level():
        slope = forward_ad.unpack_dual(block(forward_ad.make_dual(x, tangent))).tangent
    step = 1e-6 * tangent
    torch.testing.assert_close(slope, (block(x + step) - block(x - step)) / 2e-6, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dilation", "side"), [(1, 16), (3, 16), (3, 32)])
def test_depthwise_in_autocasts_type(
    dilation: int, side: int, memory_format: torch.memory_format, compiled: bool
) -> None:
    """torch's own gradient of the weight is wrong with dilation and channels last at side 32."""
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 32, 7, padding=3 * dilation, dilation=dilation, groups=32)
    x = torch.randn(4, 32, side, side).contiguous(memory_format=memory_format)
    exact = gradients(conv, conv, x)

    def ours_of(x: Tensor) -> Tensor:
        return conv2d(conv, x)

    with torch.autocast("cpu", torch.bfloat16):
        ours = gradients(torch.compile(ours_of, backend="aot_eager") if compiled else ours_of, conv, x)
    assert ours[0].dtype == torch.bfloat16
    assert [tensor.dtype for tensor in ours[1:]] == [torch.float32] * 3
    for tensor, other in zip(ours, exact, strict=True):
        assert (tensor - other).norm() < 0.01 * other.norm()


def test_autocast_leaves_float64_as_it_is() -> None:
    """As it does in torch's convolution."""
    conv, x = nn.Conv2d(32, 32, 7, padding=3, groups=32).double(), torch.randn(2, 32, 16, 16, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        ours, expected = gradients(lambda x: conv2d(conv, x), conv, x), gradients(conv, conv, x)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    ("channels", "num_groups", "height"), [(16, 2, 128), (64, 8, 131), (16, 2, 12), (64, 8, 5), (8, 8, 3)]
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_group_norm_in_bfloat16_is_as_near_to_the_exact_one_as_torchs(
    channels: int, num_groups: int, height: int, memory_format: torch.memory_format
) -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(num_groups, channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    # Neither centred nor of one scale, so that every term of the gradient counts.
    x = (3 * torch.randn(5, channels, height, 8) + torch.randn(5, channels, 1, 1)).bfloat16()
    x = x.contiguous(memory_format=memory_format)
    exact = gradients(norm.double(), norm, x.double())
    norm.float()
    for ours, torchs, right in zip(
        gradients(lambda x: group_norm(norm, x), norm, x), gradients(norm, norm, x), exact, strict=True
    ):
        assert ours.dtype == torchs.dtype
        assert (ours - right).norm() < 1.5 * (torchs - right).norm() + 0.002 * right.norm()


def test_group_norm_of_narrow_channels_takes_our_path() -> None:
    """So that the test above compares what it says."""
    x = torch.randn(2, 16, 32, 32, requires_grad=True).bfloat16().contiguous(memory_format=torch.channels_last)
    norm = nn.GroupNorm(2, 16)
    assert "Narrow" in str(group_norm(norm, x).grad_fn)
    small = group_norm(norm, x[..., :31].contiguous(memory_format=torch.channels_last))
    assert small.is_contiguous(memory_format=torch.channels_last)
    # The one that torch's kernel for contiguous maps saw.
    assert small.grad_fn.next_functions[0][0]._saved_input.is_contiguous()
    for other in (x.float(), x.contiguous()):
        assert "Narrow" not in str(group_norm(norm, other).grad_fn)
    with torch.no_grad():
        assert group_norm(norm, x).grad_fn is None
    assert "Narrow" not in str(group_norm(nn.GroupNorm(2, 16, affine=False), x).grad_fn)


def test_a_single_frame_goes_through_a_compiled_dilated_convolution() -> None:
    conv, frame = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4), torch.randn(4, 9, 8)
    compiled = torch.compile(lambda x: conv2d(conv, x), backend="aot_eager")
    torch.testing.assert_close(compiled(frame), conv(frame))


def test_transforms_and_compiled_graphs_see_torchs_own() -> None:
    conv, norm = nn.Conv2d(16, 16, 7, padding=3, groups=16), nn.GroupNorm(2, 16)

    def total(x: Tensor) -> Tensor:
        return group_norm(norm, conv2d(conv, x).bfloat16()).float().square().mean()

    x = torch.randn(3, 1, 16, 8, 8)
    per_sample = torch.func.vmap(torch.func.grad(total))(x)
    torch.testing.assert_close(per_sample[0], torch.func.grad(total)(x[0]), atol=1e-4, rtol=0.1)
    torch.compile(total, backend="aot_eager", fullgraph=True)(x[0].requires_grad_()).backward()


def test_group_norm_in_a_graph_has_the_layout_that_the_graph_is_told() -> None:
    """A view of the result that needs its channels last."""
    torch.manual_seed(0)
    norm = nn.GroupNorm(2, 16)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = (3 + torch.randn(6, 16, 5, 4)).contiguous(memory_format=torch.channels_last)

    def flat(x: Tensor) -> Tensor:
        y = F.leaky_relu(group_norm(norm, x)).permute(0, 2, 3, 1)
        return y.reshape(2, 3, 20, 16).permute(0, 1, 3, 2).reshape(2, 48, 20)

    compiled = torch.compile(flat, backend="aot_eager", fullgraph=True)
    for ours, own in zip(gradients(compiled, norm, x), gradients(flat, norm, x), strict=True):
        torch.testing.assert_close(ours, own, rtol=1e-4, atol=1e-5)
    assert compiled(x.bfloat16()).dtype == torch.bfloat16


def test_blocks_call_their_layers_so_that_hooks_and_replacements_work() -> None:
    block = speed_up(ConvNeXtBlock(8))
    called: list[str] = []
    for name in ("dwconv", "norm", "pwconv1"):
        block.get_submodule(name).register_forward_hook(lambda *_, name=name: called.append(name))
    block(torch.randn(1, 8, 4, 4))
    assert called == ["dwconv", "norm", "pwconv1"]


def test_a_model_traces_and_is_saved(tmp_path: Path) -> None:
    block, x = speed_up(ConvNeXtBlock(8)), torch.randn(1, 8, 8, 8)
    torch.jit.trace(block, x).save(tmp_path / "block.pt")
    torch.testing.assert_close(torch.jit.load(tmp_path / "block.pt")(x), block(x))
