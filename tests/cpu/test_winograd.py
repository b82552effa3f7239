"""5x5 convolutions against torch's."""

import threading
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from plasm.cpu import speed_up
from plasm.cpu.transform import Conv2d
from plasm.cpu.winograd import conv2d_5x5, is_faster, kernels_transformed_once
from plasm.layers.convlstm import GateConv
from plasm.models import create_task
from plasm.tasks import total_loss


@pytest.mark.parametrize("height", [8, 9, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_torchs(height: int, memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, height, 7, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()
    weight = torch.randn(4, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    inputs, grad = (x, weight, bias), torch.randn(2, 4, height, 7, dtype=torch.float64)
    ours, torchs = conv2d_5x5(x, weight, bias), F.conv2d(x, weight, bias, padding=2)
    torch.testing.assert_close(ours, torchs)
    of_ours, of_torchs = torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(torchs, inputs, grad)
    for mine, its in zip(of_ours, of_torchs, strict=True):
        torch.testing.assert_close(mine, its)


@pytest.mark.parametrize("of", ["x", "weight"])
def test_the_gradient_of_one_alone(of: str) -> None:
    x, weight = torch.randn(2, 3, 8, 7).double(), torch.randn(4, 3, 5, 5).double()
    wanted = (x if of == "x" else weight).requires_grad_()
    (ours,) = torch.autograd.grad(conv2d_5x5(x, weight).square().sum(), wanted)
    (torchs,) = torch.autograd.grad(F.conv2d(x, weight, padding=2).square().sum(), wanted)
    torch.testing.assert_close(ours, torchs)


def test_first_and_second_derivatives() -> None:
    x = torch.randn(1, 2, 5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(conv2d_5x5, (x, weight))
    assert torch.autograd.gradgradcheck(conv2d_5x5, (x, weight))


def test_frames_in_parts_give_what_they_give_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(5, 3, 8, 8).double(), torch.randn(4, 3, 5, 5).double()
    monkeypatch.setattr("plasm.cpu.winograd._LARGEST_PRODUCTS", 2 * 8 * 2 * 8 * 4)
    torch.testing.assert_close(conv2d_5x5(x, weight), F.conv2d(x, weight, padding=2))


def test_the_error_of_fp32_is_small() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(4, 128, 16, 16), torch.randn(512, 128, 5, 5)
    exact = F.conv2d(x.double(), weight.double(), padding=2)
    assert (conv2d_5x5(x, weight) - exact).abs().max() < 1e-5 * exact.abs().max()


@pytest.mark.parametrize("height", [8, 9])
def test_an_activation_in_place_may_follow(height: int) -> None:
    x, weight = torch.randn(2, 3, height, 7).double().requires_grad_(), torch.randn(4, 3, 5, 5).double()
    found = []
    for apply in (conv2d_5x5, lambda x, weight: F.conv2d(x, weight, padding=2)):
        found.append(torch.autograd.grad(apply(x, weight).tanh_().square().sum(), x)[0])
    torch.testing.assert_close(*found)


def test_no_frames() -> None:
    assert conv2d_5x5(torch.zeros(0, 3, 8, 8), torch.zeros(4, 3, 5, 5)).shape == (0, 4, 8, 8)


TAKEN: dict[str, Any] = {"in_channels": 64, "out_channels": 64, "kernel_size": 5, "padding": 2}


@pytest.mark.parametrize(
    "change",
    [
        {"kernel_size": 3, "padding": 1},
        {"padding": 1},
        {"padding": "same"},
        {"stride": 2},
        {"dilation": 2},
        {"groups": 2},
        {"in_channels": 48},
        {"out_channels": 72},
        {"padding_mode": "reflect"},
        {"dtype": torch.float64},
    ],
)
def test_other_convolutions_are_left_to_torch(change: dict[str, Any]) -> None:
    clip = torch.zeros(4, 64, 16, 16)
    assert is_faster(Conv2d(**TAKEN), clip) == torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    conv = Conv2d(**(TAKEN | change))
    assert not is_faster(conv, torch.zeros(4, conv.in_channels, 16, 16, dtype=conv.weight.dtype))


def test_few_places_autocast_and_transforms_are_left_to_torch() -> None:
    conv, clip = Conv2d(**TAKEN), torch.zeros(4, 64, 16, 16)
    assert not is_faster(conv, clip[:3])
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_faster(conv, clip)
    taken: list[bool] = []
    torch.func.vmap(lambda x: taken.append(is_faster(conv, x)) or x)(clip[None])  # type: ignore[func-returns-value]
    assert taken == [False]


def test_what_torch_takes_otherwise_or_refuses_is_left_to_it() -> None:
    conv, clip = Conv2d(**TAKEN), torch.zeros(64, 32, 32)
    assert conv(clip).shape == clip.shape
    with pytest.raises(RuntimeError, match="expected input"):
        conv(torch.zeros(4, 48, 16, 16))


def test_a_graph_takes_any_number_of_frames() -> None:
    conv, batch = Conv2d(**TAKEN), torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(conv, (torch.randn(4, 64, 16, 16),), dynamic_shapes=({0: batch},))
    clip = torch.randn(2, 64, 16, 16)
    torch.testing.assert_close(program.module()(clip), conv(clip))


def test_kernels_are_made_once_inside_and_anew_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Tensor] = []
    tensordot = torch.tensordot
    monkeypatch.setattr(torch, "tensordot", lambda *args: (made.append(args[1]), tensordot(*args))[1])
    conv, clip = speed_up(GateConv(64, 64, 5)), torch.randn(4, 64, 16, 16)
    with kernels_transformed_once():
        first = conv(clip)
        assert torch.equal(first, conv(clip))
        assert len(made) == 1
        with torch.no_grad():
            conv(clip)
        assert conv(clip).requires_grad
        assert len(made) == 2  # without a gradient it is another
    with torch.no_grad():
        conv.conv.weight.mul_(2)
    with kernels_transformed_once():
        torch.testing.assert_close(conv(clip), 2 * first)
    conv(clip)
    conv(clip)
    assert len(made) == 5


def test_threads_do_not_share_kernels() -> None:
    convs, clip = [speed_up(GateConv(64, 64, 5)) for _ in range(4)], torch.randn(4, 64, 16, 16)
    out: dict[int, Tensor] = {}

    def run(index: int) -> None:
        with kernels_transformed_once(), torch.no_grad():
            for _ in range(5):
                out[index] = convs[index](clip)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, conv in enumerate(convs):
        torch.testing.assert_close(out[index], F.conv2d(clip, conv.conv.weight, padding=2), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "name", ["convlstm_mmnist", "predrnn_mmnist", "predrnnpp_mmnist", "predrnnv2_mmnist", "mim_mmnist"]
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_trains_as_without_it(name: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, hidden_dims=(64, 64), in_frames=2, out_frames=2, img_size=32, patch_size=2)
    speed_up(model)
    model.set_grad_checkpointing(checkpointing)
    clip, target = torch.rand(4, 2, 1, 32, 32), torch.rand(4, 2, 1, 32, 32)

    def gradients() -> list[Tensor]:
        torch.manual_seed(1)
        losses, seen = create_task(name, model)(torch.cat([clip, target], 1), torch.arange(4), 0, 0)
        return [seen.prediction, *torch.autograd.grad(total_loss(losses), list(model.parameters()), allow_unused=True)]

    calls = 0

    def counted(*args: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return conv2d_5x5(*args)

    monkeypatch.setattr("plasm.cpu.transform.conv2d_5x5", counted)
    ours = gradients()
    assert calls
    monkeypatch.setattr("plasm.cpu.transform.is_faster", lambda *args: False)
    for mine, its in zip(ours, gradients(), strict=True):
        assert (mine is None) == (its is None)
        if mine is not None:
            assert (mine - its).abs().max() <= 1e-4 * its.abs().max()
