"""The sparse engine against the masked-dense definition, written here a second time without looking at its tables."""

import os
import tempfile
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_cases import ddp_worker, random_case, randomise
from timm.models import checkpoint as timm_checkpoint
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from plasm.layers import sparse
from plasm.layers.simvp_coders import SimVPEncoder
from plasm.layers.sparse import (
    SparseConv2d,
    SparseEncoder,
    SparseGroupNorm,
    SparseSites,
    SparseTensor,
    sparse_conv2d,
    sparse_group_norm,
)

RATIOS = (0.0, 0.5, 0.9, 0.96, 1.0)
NEEDS_CUDA = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# --- the definition: dense layers, masked sites set to zero ---------------------------------------------------------


def dense_conv(x: Tensor, visible: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> tuple[Tensor, Tensor]:
    active = visible if stride == 1 else F.max_pool2d(visible.double(), 2, ceil_mode=True).bool()
    y = F.conv2d(torch.where(visible, x, 0), weight, bias, stride, padding=weight.shape[-1] // 2)
    return torch.where(active, y, 0), active


def dense_norm(
    x: Tensor, visible: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float, slope: float = 1.0
) -> Tensor:
    """Frame by frame on the visible values alone: nothing is shared with the engine's segment sums."""
    frames = []
    for frame, seen in zip(x, visible[:, 0], strict=True):
        out = torch.zeros_like(frame)
        if seen.any():
            values = frame[:, seen].view(groups, -1)
            var, mean = torch.var_mean(values, dim=1, correction=0, keepdim=True)
            y = ((values - mean) / (var + eps).sqrt()).view(len(frame), -1)
            y = y if weight is None else y * weight[:, None]
            y = y if bias is None else y + bias[:, None]
            out[:, seen] = F.leaky_relu(y, slope).to(out.dtype)
        frames.append(
            out + 0 * sum(p.sum() for p in (frame, weight, bias) if p is not None)
        )  # in the graph all the same
    return torch.stack(frames)


def dense_encoder(encoder: SparseEncoder, x: Tensor, visible: Tensor) -> Tensor:
    for block in encoder.blocks:
        conv, norm = block.conv, block.norm
        x, visible = dense_conv(x, visible, conv.weight, conv.bias, conv.stride[0])
        x = dense_norm(x, visible, norm.num_groups, norm.weight, norm.bias, norm.eps, 0.2)
    return x


def assert_same(got: Tensor, want: Tensor, tol: float) -> None:
    assert got.dtype == want.dtype
    scale = max(1.0, want.abs().max().item()) if want.numel() else 1.0
    torch.testing.assert_close(got / scale, want / scale, rtol=0, atol=tol)


# --- exactness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(4, 3, 16, 16), (1, 3, 16, 12), (3, 3, 9, 7), (3, 3, 1, 1)], ids=str)
@pytest.mark.parametrize("ratio", RATIOS)
def test_encoder_equals_masked_dense(ratio: float, size: tuple[int, ...], device: str) -> None:
    encoder = SparseEncoder(in_chans=3, dim=8, depth=4).to(device)
    randomise(encoder)
    x, visible = random_case(ratio, size, torch.float32)
    visible = visible.to(device)
    dense = x.to(device).requires_grad_()
    poisoned = x.to(device).masked_fill(~visible, float("nan")).requires_grad_()
    got, want = encoder(poisoned, visible), dense_encoder(encoder, dense, visible)
    assert got.shape == want.shape
    assert_same(got, want, 1e-5)
    grad = torch.randn_like(want)
    got_grads = torch.autograd.grad(got, [poisoned, *encoder.parameters()], grad, allow_unused=False)
    want_grads = torch.autograd.grad(want, [dense, *encoder.parameters()], grad, materialize_grads=True)
    for mine, true in zip(got_grads, want_grads, strict=True):
        assert_same(mine, true, 1e-5)


@pytest.mark.parametrize("size", [(2, 2, 4, 4), (1, 2, 5, 3), (3, 2, 3, 1)], ids=str)
@pytest.mark.parametrize("ratio", RATIOS)
def test_encoder_gradcheck(ratio: float, size: tuple[int, ...]) -> None:
    encoder = SparseEncoder(in_chans=2, dim=4, depth=2).double()
    randomise(encoder)
    x, visible = random_case(ratio, size, torch.float64)
    names, values = zip(*encoder.named_parameters(), strict=True)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(encoder, dict(zip(names, values, strict=True)), (x, visible))

    assert torch.autograd.gradcheck(run, (x.requires_grad_(), *values))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    size = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 7)), draw(st.integers(1, 7))
    bits = draw(st.lists(st.booleans(), min_size=size[0] * size[2] * size[3], max_size=size[0] * size[2] * size[3]))
    seed = draw(st.integers(0, 1000))
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x, torch.tensor(bits).view(size[0], 1, *size[2:]), seed


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from([1, 3]), st.sampled_from([1, 2]), st.booleans(), st.integers(1, 3))
def test_conv_property(case: tuple[Tensor, Tensor, int], kernel: int, stride: int, bias: bool, out_chans: int) -> None:
    x, visible, seed = case
    layer = SparseConv2d(x.shape[1], out_chans, kernel, stride, kernel // 2, bias=bias, dtype=torch.float64)
    randomise(layer, seed)
    poisoned = x.masked_fill(~visible, float("nan")).requires_grad_()
    x.requires_grad_()
    sparse_out = layer(SparseTensor.from_dense(poisoned, visible))
    want, active = dense_conv(x, visible, layer.weight, layer.bias, stride)
    got = sparse_out.to_dense()
    assert torch.equal(sparse_out.visible, active)
    assert_same(got, want, 1e-12)
    grad = torch.randn_like(want)
    got_grads = torch.autograd.grad(got, [poisoned, *layer.parameters()], grad)
    want_grads = torch.autograd.grad(want, [x, *layer.parameters()], grad)
    for mine, true in zip(got_grads, want_grads, strict=True):
        assert_same(mine, true, 1e-12)


@settings(max_examples=100, deadline=None)
@given(cases(), st.integers(1, 2), st.booleans(), st.sampled_from([1.0, 0.2]))
def test_norm_property(case: tuple[Tensor, Tensor, int], groups: int, affine: bool, slope: float) -> None:
    x, visible, seed = case
    x = x.repeat(1, groups, 1, 1)
    layer = SparseGroupNorm(groups, x.shape[1], affine=affine, dtype=torch.float64)
    randomise(layer, seed)
    x.requires_grad_()
    args = groups, layer.weight, layer.bias, layer.eps, slope
    got = sparse_group_norm(SparseTensor.from_dense(x, visible), *args).to_dense()
    want = dense_norm(x, visible, *args)
    assert_same(got, want, 1e-10)
    grad = torch.randn_like(want)
    inputs = [x, *layer.parameters()]
    got_grads = torch.autograd.grad(got, inputs, grad)
    want_grads = torch.autograd.grad(want, inputs, grad, materialize_grads=True)
    for mine, true in zip(got_grads, want_grads, strict=True):
        assert_same(mine, true, 1e-9)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_all_visible_equals_the_dense_layer(kernel: int, stride: int) -> None:
    layer = SparseConv2d(3, 4, kernel, stride, kernel // 2)
    norm = SparseGroupNorm(2, 4)
    randomise(norm)
    x = torch.randn(2, 3, 7, 10)
    y = layer(SparseTensor.from_dense(x, torch.ones(2, 1, 7, 10, dtype=torch.bool)))
    assert_same(y.to_dense(), layer(x), 1e-6)
    assert_same(norm(y).to_dense(), norm(layer(x)), 1e-6)


def test_norm_takes_two_passes() -> None:
    x, visible = random_case(0.5, (3, 4, 16, 16), torch.float64)
    far = (x + 1e4).float()  # E[x^2] - E[x]^2 loses every digit of the variance here
    want = dense_norm(far.double(), visible, 2, None, None, 1e-5)
    got = sparse_group_norm(SparseTensor.from_dense(far, visible), 2).to_dense()
    assert_same(got.double(), want, 2e-3)


def test_frames_do_not_meet_in_the_statistics() -> None:
    """One frame's infinity must not reach another's mean, as a running sum over all rows would let it."""
    x, visible = random_case(0.5, (4, 4, 8, 8), torch.float32)
    want = sparse_group_norm(SparseTensor.from_dense(x, visible), 2).to_dense()
    x[0] = float("inf")
    got = sparse_group_norm(SparseTensor.from_dense(x, visible), 2).to_dense()
    assert torch.equal(got[1:], want[1:])


# --- SparseTensor ----------------------------------------------------------------------------------------------------


def test_round_trip_and_map() -> None:
    x, visible = random_case(0.7, (3, 2, 5, 6), torch.float32)
    tensor = SparseTensor.from_dense(x.masked_fill(~visible, float("nan")), visible)
    assert tensor.features.shape == (int(visible.sum()), 2)
    assert torch.equal(tensor.visible, visible)
    assert torch.equal(tensor.to_dense(), torch.where(visible, x, 0))
    doubled = tensor.map(lambda features: features * 2)
    assert torch.equal(doubled.to_dense(), torch.where(visible, 2 * x, 0))
    assert doubled.sites is tensor.sites
    grid = tensor.sites.grid[:, 1:-1, 1:-1]
    assert torch.equal(grid >= 0, visible[:, 0])
    assert torch.equal(grid[visible[:, 0]], torch.arange(len(tensor.features), dtype=torch.int32))
    assert tensor.sites.grid.sum() == grid.sum() - (tensor.sites.grid.numel() - grid.numel())  # the border is -1


def test_layers_share_tables() -> None:
    x, visible = random_case(0.7, (2, 4, 8, 8), torch.float32)
    tensor = SparseTensor.from_dense(x, visible)
    first, second = (SparseConv2d(4, 4, 3, padding=1) for _ in range(2))
    down = SparseConv2d(4, 4, 3, stride=2, padding=1)
    y = second(first(tensor))
    assert y.sites is tensor.sites
    assert list(tensor.sites._pairs) == [(3, 1)]
    assert down(y).sites is down(tensor).sites
    assert tensor.sites.pairs(3, 2) is tensor.sites.pairs(3, 2)


# --- nothing is computed at a masked site ----------------------------------------------------------------------------


class CountMultiplyAdds(TorchDispatchMode):
    """Counts the MACs of every matrix product that runs, inside the engine's operators too."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        inside = {
            torch.ops.plasm.sparse_conv2d.default: sparse._convolve,
            torch.ops.plasm.sparse_conv2d_backward.default: sparse._convolve_backward,
        }
        if func in inside:
            with self:
                return inside[func](*args, **(kwargs or {}))
        if func.overloadpacket is torch.ops.aten.mm:
            self.total += args[0].shape[0] * args[0].shape[1] * args[1].shape[1]
        elif func.overloadpacket is torch.ops.aten.addmm:
            self.total += args[1].shape[0] * args[1].shape[1] * args[2].shape[1]
        elif func.overloadpacket in (torch.ops.aten.bmm, torch.ops.aten.convolution):
            raise AssertionError(f"{func} is not counted")
        return func(*args, **(kwargs or {}))


class CountCalls(TorchDispatchMode):
    """Counts the calls of one operator."""

    def __init__(self, op: torch._ops.OpOverload) -> None:
        super().__init__()
        self.op, self.total = op, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.total += func is self.op
        return func(*args, **(kwargs or {}))


def active_pairs(visible: Tensor, active: Tensor, kernel: int, stride: int) -> int:
    """Count (active output, tap, visible input) by unfolding the mask."""
    taps = F.unfold(visible.double(), kernel, padding=kernel // 2, stride=stride)
    return int((taps * active.double().flatten(2)).sum())


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_macs_are_the_active_pairs(kernel: int, stride: int, ratio: float) -> None:
    x, visible = random_case(ratio, (3, 3, 9, 10), torch.float32)
    layer = SparseConv2d(3, 5, kernel, stride, kernel // 2)
    inputs = SparseTensor.from_dense(x, visible)
    inputs.features.requires_grad_()
    with CountMultiplyAdds() as forward:
        out = layer(inputs)
    with CountMultiplyAdds() as backward:
        out.features.sum().backward()
    expected = active_pairs(visible, out.visible, kernel, stride) * 3 * 5
    assert forward.total == expected
    assert backward.total == 2 * expected


# --- autocast, compile, checkpointing, DDP ---------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_bf16_autocast(device: str) -> None:
    """No further from fp32 than the dense layers in bf16 are, by the same measure."""
    encoder = SparseEncoder(2, 8, 4).to(device)
    x, visible = random_case(0.8, (6, 2, 16, 16), torch.float32)
    x, visible = x.to(device), visible.to(device)
    weights = list(encoder.parameters())
    want = dense_encoder(encoder, x, visible)
    want_grads = torch.autograd.grad(want.square().sum(), weights)
    with torch.autocast(device, torch.bfloat16):
        tensor = encoder.blocks[0].conv(SparseTensor.from_dense(x, visible))
        assert tensor.features.dtype == torch.bfloat16
        got, dense = encoder(x, visible), dense_encoder(encoder, x, visible)
    assert got.dtype == torch.bfloat16
    got_grads = torch.autograd.grad(got.float().square().sum(), weights)
    dense_grads = torch.autograd.grad(dense.float().square().sum(), weights)
    assert all(grad.dtype == torch.float32 for grad in got_grads)
    distances = []
    for result in ((got, *got_grads), (dense, *dense_grads)):
        pairs = zip(result, (want, *want_grads), strict=True)
        distances.append([((a.float() - b).norm() / b.norm().clamp(min=1)).item() for a, b in pairs])
    assert distances[0][0] <= 0.02
    assert sum(distances[0]) <= 2 * sum(distances[1])


def test_autocast_leaves_double_precision_as_it_is() -> None:
    x, visible = random_case(0.5, (1, 2, 6, 6), torch.float64)
    layer = SparseConv2d(2, 3, 3, padding=1, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        dense, sparse = layer(x * visible), layer(SparseTensor.from_dense(x, visible)).to_dense()
    assert_same(sparse, dense * visible, 1e-12)


def test_bf16_statistics_are_fp32() -> None:
    """4,096 values of 1 or 1 + 2^-7: summed in bf16 they would stop growing at 256."""
    x = torch.ones(1, 2, 64, 32)
    x[..., ::2] += 2**-7
    visible = torch.ones(1, 1, 64, 32, dtype=torch.bool)
    got = sparse_group_norm(SparseTensor.from_dense(x.bfloat16(), visible), 1, eps=1e-12).to_dense()
    assert got.dtype == torch.bfloat16
    assert_same(got.float(), F.group_norm(x, 1, eps=1e-12), 1e-2)


def masks(count: int, size: tuple[int, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    for seed in range(count):
        yield random_case(0.5 + 0.1 * (seed % 4), size, torch.float32, seed)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compile_does_not_follow_the_number_of_sites(backend: str) -> None:
    torch._dynamo.reset()
    encoder = SparseEncoder(2, 8, 4)
    randomise(encoder)
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(encoder, backend=counter)
    compilations = []
    for x, visible in masks(6, (4, 2, 16, 16)):
        got, want = compiled(x, visible), encoder(x, visible)
        assert_same(got, want, 1e-5)
        grad = torch.randn_like(want)
        got_grads = torch.autograd.grad(got, encoder.parameters(), grad)
        want_grads = torch.autograd.grad(want, encoder.parameters(), grad)
        for mine, true in zip(got_grads, want_grads, strict=True):
            assert_same(mine, true, 1e-5)
        compilations.append(counter.frame_count)
    assert compilations[0] > 0
    assert compilations[-1] == compilations[0], compilations


@pytest.mark.parametrize("how", ["blocks", "torch", "timm"])
def test_checkpointing_changes_nothing(how: str) -> None:
    encoder = SparseEncoder(2, 8, 4)
    x, visible = random_case(0.8, (3, 2, 16, 16), torch.float32)
    want = torch.autograd.grad(encoder(x, visible).square().sum(), encoder.parameters())
    encoder.set_grad_checkpointing(how == "blocks")
    runs = {"torch": lambda: checkpoint(encoder, x, visible, use_reentrant=False)}
    runs["timm"] = lambda: timm_checkpoint(encoder, x, visible)
    runs["blocks"] = lambda: encoder(x, visible)
    convolutions = CountCalls(torch.ops.plasm.sparse_conv2d.default)
    out = runs[how]()
    with convolutions:
        got = torch.autograd.grad(out.square().sum(), encoder.parameters())
    assert convolutions.total == 4  # run again, so not kept
    for mine, true in zip(got, want, strict=True):
        assert torch.equal(mine, true)


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")
def test_ddp_averages_the_gradients() -> None:
    with tempfile.TemporaryDirectory() as folder:
        result = os.path.join(folder, "grads.pt")
        torch.multiprocessing.spawn(ddp_worker, (os.path.join(folder, "store"), result), nprocs=2)
        got = torch.load(result)
    encoder = SparseEncoder(2, 4, 2)
    randomise(encoder)
    x, visible = random_case(0.8, (4, 2, 8, 8), torch.float32)
    encoder(x, visible).square().sum().div(2).backward()
    for mine, parameter in zip(got, encoder.parameters(), strict=True):
        assert_same(mine, parameter.grad, 1e-5)


# --- layers and errors -----------------------------------------------------------------------------------------------


def test_layers_load_each_others_weights() -> None:
    conv, norm = SparseConv2d(3, 4, 3, padding=1), SparseGroupNorm(2, 4)
    plain_conv, plain_norm = nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4)
    conv.load_state_dict(plain_conv.state_dict())
    norm.load_state_dict(plain_norm.state_dict())
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(norm(conv(x)), plain_norm(plain_conv(x)))


@pytest.mark.parametrize(("depth", "size"), [(2, (5, 4)), (4, (3, 2)), (3, (5, 4))])
def test_encoder_shapes_keys_and_init(depth: int, size: tuple[int, int]) -> None:
    encoder = SparseEncoder(in_chans=3, dim=8, depth=depth)
    assert (encoder.num_features, encoder.reduction) == (8, 2 ** (depth // 2))
    x = torch.rand(2, 3, 10, 8)
    assert encoder(x).shape == encoder(x, x[:, :1] > 0.5).shape == (2, 8, *size)
    names = [f"blocks.{i}.{name}" for i in range(depth) for name in ("conv", "norm")]
    assert list(encoder.state_dict()) == [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
    big = SparseEncoder(64, 256, 1).blocks[0].conv  # fan-in is not fan-out here
    assert big.weight.std().item() == pytest.approx((2 / (1 + 0.2**2) / (64 * 9)) ** 0.5, rel=0.02)
    assert not big.bias.any()


def test_no_frames_are_encoded_to_none() -> None:
    encoder = SparseEncoder(2, 8, 4)
    frames = torch.rand(0, 2, 9, 7, requires_grad=True)
    features = encoder(frames, torch.ones(0, 1, 9, 7, dtype=torch.bool))
    assert features.shape == encoder(frames).shape == (0, 8, 3, 2)
    features.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in encoder.parameters())


def test_without_a_mask_the_dense_layers_run() -> None:
    encoder = SparseEncoder(1, 8, 4)
    x = torch.rand(2, 1, 16, 16)
    want = x
    for block in encoder.blocks:
        want = block.act(block.norm(block.conv(want)))
    assert torch.equal(encoder(x), want)
    assert_same(encoder(x, torch.ones(2, 1, 16, 16, dtype=torch.bool)), want, 1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 5, "padding": 2},
        {"kernel_size": (1, 3), "padding": (0, 1)},
        {"kernel_size": 3, "padding": 0},
        {"kernel_size": 3, "padding": "same"},
        {"kernel_size": 3, "padding": 1, "stride": 3},
        {"kernel_size": 3, "padding": 1, "stride": (1, 2)},
        {"kernel_size": 3, "padding": 1, "groups": 2},
        {"kernel_size": 3, "padding": 2, "dilation": 2},
        {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    ],
    ids=str,
)
def test_dense_only_layers_refuse_a_sparse_tensor(options: dict) -> None:
    layer = SparseConv2d(2, 2, **options)
    x, visible = random_case(0.5, (1, 2, 6, 6), torch.float32)
    assert torch.equal(layer(x), nn.Conv2d.forward(layer, x))
    with pytest.raises(ValueError, match=r"to_dense\(\)"):
        layer(SparseTensor.from_dense(x, visible))


def test_errors_say_what_is_wrong() -> None:
    x, visible = random_case(0.5, (1, 2, 6, 6), torch.float32)
    tensor = SparseTensor.from_dense(x, visible)
    with pytest.raises(ValueError, match="bool"):
        SparseTensor.from_dense(x, visible.float())
    with pytest.raises(ValueError, match=r"\(N, 1, H, W\)"):
        SparseTensor.from_dense(x, visible[..., :3])
    with pytest.raises(ValueError, match=r"\(N, 1, H, W\)"):
        SparseSites(visible[:, 0])
    with pytest.raises(ValueError, match="input channels"):
        sparse_conv2d(tensor, torch.zeros(2, 3, 3, 3))
    with pytest.raises(ValueError, match="groups"):
        sparse_group_norm(tensor, 3)
    with pytest.raises(ValueError, match="positive"):
        sparse_group_norm(tensor, 1, negative_slope=0.0)
    with pytest.raises(ValueError, match=r"\(N, 1, H, W\)"):
        SparseEncoder(2, 4, 2)(x, visible[..., :3])
    for kernel in (2, 5):
        with pytest.raises(ValueError, match=f"kernels 1x1 and 3x3 alone, and has {kernel}x{kernel}"):
            SimVPEncoder(2, 4, 2, kernel)(x, visible)


def test_repr_names_the_sizes() -> None:
    x, visible = random_case(0.0, (1, 2, 3, 3), torch.float32)
    assert repr(SparseTensor.from_dense(x, visible)) == "SparseTensor(features=(9, 2), visible=(1, 1, 3, 3))"
