"""Sparse against masked-dense: one forward and backward pass of the paper's encoder, in turn, in one run.

    python benchmarks/sparse.py --out docs/images/sparse.png
    python benchmarks/sparse.py --device cuda --dtype bfloat16
    python benchmarks/sparse.py --step

Masked-dense is what one writes without this engine: dense convolutions on channels-last tensors, every result
multiplied by the mask, GroupNorm from masked sums with a hand-written backward pass. "Plain dense" is the same encoder
with torch's own layers and no mask at all: faster still, but another function. All columns are ratios to sparse.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plasm.devices import move
from plasm.layers.sparse import SparseConvBlock, SparseEncoder
from plasm.layers.sparse_sites import SparseSites

RATIOS = (0.0, 0.5, 0.9, 0.95, 0.96, 0.98)


# ---------------------------------------------------------------------------------------------------------------------
# Masked-dense
# ---------------------------------------------------------------------------------------------------------------------


class MaskedGroupNormAct(torch.autograd.Function):
    """GroupNorm over visible sites and LeakyReLU on a dense tensor; keeps what the sparse one keeps, works in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, groups: int, slope: float) -> Tensor:
        """x: (N, C, H, W), zero where masked; mask: (N, H * W, 1), one where visible."""
        rows = x.permute(0, 2, 3, 1).flatten(1, 2)  # (N, H * W, C), a view of channels-last memory
        wide = rows.float()
        channels = wide.shape[2] // groups
        count = mask.sum(1, dtype=torch.float32).clamp(min=1) * channels  # (N, 1)
        mean = _groups(wide.sum(1), groups) / count
        centred = (wide - _spread(mean, channels)).mul_(mask)
        rstd = (_groups(centred.square().sum(1), groups) / count + 1e-5).rsqrt()
        y = centred.mul_(_spread(rstd, channels) * weight).add_(bias)
        y = F.leaky_relu_(y, slope).mul_(mask).to(x.dtype)
        ctx.save_for_backward(rows, y, mask, weight, mean, rstd, count)
        ctx.groups, ctx.slope = groups, slope
        return y.view(*x.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The same sums as the sparse backward pass, over all sites."""
        rows, y, mask, weight, mean, rstd, count = ctx.saved_tensors
        groups, channels = ctx.groups, rows.shape[2] // ctx.groups
        shape = grad.permute(0, 2, 3, 1).shape
        grad = grad.permute(0, 2, 3, 1).flatten(1, 2).float()
        grad = torch.ops.aten.leaky_relu_backward(grad, y.float(), ctx.slope, True).mul_(mask)
        spread_rstd = _spread(rstd, channels)
        normed = (rows.float() - _spread(mean, channels)).mul_(spread_rstd).mul_(mask)
        grad_bias, grad_weight = grad.sum(1), (grad * normed).sum(1)
        shift = _spread(_groups(grad_bias * weight, groups) / count, channels) * spread_rstd
        slant = _spread(_groups(grad_weight * weight, groups) / count, channels) * spread_rstd
        grad = grad.mul_(spread_rstd * weight).sub_(normed.mul_(slant)).sub_(shift).mul_(mask)
        grad_x = grad.to(rows.dtype).view(shape).permute(0, 3, 1, 2)
        return grad_x, None, grad_weight.sum(0), grad_bias.sum(0), None, None


def _groups(x: Tensor, groups: int) -> Tensor:
    return x.view(x.shape[0], groups, -1).sum(-1)


def _spread(x: Tensor, channels: int) -> Tensor:
    return x.repeat_interleave(channels, 1).unsqueeze(1)


def blocks(encoder: SparseEncoder) -> list[SparseConvBlock]:
    return [block for block in encoder.blocks if isinstance(block, SparseConvBlock)]


def masked_dense(encoder: SparseEncoder, frames: Tensor, visible: Tensor) -> Tensor:
    """The encoder's sparse result, computed densely."""
    x = torch.where(visible, frames, 0)
    for block in blocks(encoder):
        conv, norm = block.conv, block.norm
        stride = conv.stride[0]
        if stride == 2:
            visible = F.max_pool2d(visible.float(), 2, ceil_mode=True).bool()
        y = F.conv2d(x, conv.weight, conv.bias, stride, padding=1)
        mask = visible.to(y.dtype)
        rows = mask.flatten(1).unsqueeze(2)
        x = MaskedGroupNormAct.apply(y * mask, rows, norm.weight, norm.bias, norm.num_groups, 0.2)
    return x


# ---------------------------------------------------------------------------------------------------------------------
# Measuring
# ---------------------------------------------------------------------------------------------------------------------


class Result(NamedTuple):
    """Seconds of each measured round, peak bytes above what was there before, MACs of the forward pass."""

    seconds: list[float]
    peak: int
    macs: int


def exact_mask(num_frames: int, size: int, ratio: float, device: str) -> Tensor:
    """(N, 1, H, W) bool with exactly floor(ratio * H * W) pixels of each frame masked."""
    order = torch.rand(num_frames, size * size, generator=torch.Generator().manual_seed(0)).argsort(1)
    return (order >= int(ratio * size * size)).view(num_frames, 1, size, size).to(device)


def sparse_macs(encoder: SparseEncoder, visible: Tensor) -> int:
    """Active pairs times C_in C_out, summed over the layers."""
    total, sites = 0, SparseSites(visible)
    for block in blocks(encoder):
        stride = block.conv.stride[0]
        total += sites.pairs(3, stride).inputs.shape[0] * block.conv.in_channels * block.conv.out_channels
        sites = sites.strided(stride)
    return total


def dense_macs(encoder: SparseEncoder, frames: Tensor) -> int:
    """Taps times output positions times C_in C_out, summed over the layers."""
    total, (num_frames, _, height, width) = 0, frames.shape
    for block in blocks(encoder):
        stride = block.conv.stride[0]
        height, width = -(-height // stride), -(-width // stride)
        total += num_frames * height * width * block.conv.weight.numel()
    return total


def peak_memory(run: Callable[[], None], device: str) -> int:
    """Peak of the bytes that torch's allocator has handed out during one run, temporaries included.

    On a CPU it is added up from the profiler's record of every allocation; scratch space inside oneDNN and the BLAS,
    which the dense layers use more of, is not seen.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def in_turn(runs: Sequence[Callable[[], None]], rounds: int, device: str) -> list[list[float]]:
    """Time each run once a round, so that whatever else the machine does meets all of them."""
    seconds: list[list[float]] = [[] for _ in runs]
    for number in range(rounds + 1):
        for run, times in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            if number:  # the first round warms up
                times.append(time.perf_counter() - start)
    return seconds


def passes(
    forward: Callable[[], Tensor], encoder: SparseEncoder, device: str, dtype: torch.dtype
) -> Callable[[], None]:
    """One forward and backward pass."""

    def run() -> None:
        encoder.zero_grad()
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            out = forward()
        torch.autograd.backward(out, torch.ones_like(out))

    return run


def measure(ratio: float, args: argparse.Namespace) -> list[Result]:
    """Sparse, masked-dense and plain dense at one mask ratio."""
    device, dtype = args.device, getattr(torch, args.dtype)
    torch.manual_seed(0)
    encoder = SparseEncoder(1, args.dim, args.depth).to(device)
    dense = move(SparseEncoder(1, args.dim, args.depth), torch.device(device))
    dense.load_state_dict(encoder.state_dict())
    frames = torch.rand(args.frames, 1, args.size, args.size).to(device)
    visible = exact_mask(args.frames, args.size, ratio, device)
    last = frames.contiguous(memory_format=torch.channels_last)
    if not ratio or dtype == torch.float32:
        with torch.no_grad():  # a benchmark of two different functions would mean nothing
            torch.testing.assert_close(encoder(frames, visible), masked_dense(dense, last, visible), rtol=0, atol=1e-4)
    runs = [
        passes(lambda: encoder(frames, visible), encoder, device, dtype),
        passes(lambda: masked_dense(dense, last, visible), dense, device, dtype),
        passes(lambda: dense(last), dense, device, dtype),
    ]
    seconds = in_turn(runs, args.rounds, device)
    every = dense_macs(encoder, frames)
    counts = [sparse_macs(encoder, visible), every, every]
    return [
        Result(times, peak_memory(run, device), count) for times, run, count in zip(seconds, runs, counts, strict=True)
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Reporting
# ---------------------------------------------------------------------------------------------------------------------


def speedup(sparse: Result, other: Result) -> tuple[float, float, float]:
    """Median, least and greatest ratio of time over the rounds; each compares neighbours in time."""
    ratios = [b / a for a, b in zip(sparse.seconds, other.seconds, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def crossover(ratios: Sequence[float], speedups: Sequence[float]) -> str:
    """Mask ratio from which sparse is faster, by linear interpolation between the measured ones."""
    points = list(zip(ratios, speedups, strict=True))
    for (low, slow), (high, fast) in itertools.pairwise(points):
        if slow < 1 <= fast:
            return f"about {low + (high - low) * (1 - slow) / (fast - slow):.2f}"
    return f"below {points[0][0]}" if points[0][1] >= 1 else f"above {points[-1][0]}"


def table(args: argparse.Namespace) -> None:
    """Print the table and the crossovers, and plot them if a path is given."""
    print(
        f"{args.frames} frames {args.size}x{args.size}x1, Cs {args.dim}, depth {args.depth}, {args.dtype}, "
        f"{args.device}, {torch.get_num_threads()} threads\n"
        f"forward + backward; median of {args.rounds} rounds in turn (least-greatest)"
    )
    print("memory: peak bytes from torch's allocator during the run, temporaries included")
    print("   r0 | masked-dense / sparse: time      memory  mult-adds | plain dense / sparse: time      memory")
    rows = []
    for ratio in args.ratios:
        sparse, masked, plain = measure(ratio, args)
        (time_masked, low, high), (time_plain, plain_low, plain_high) = speedup(sparse, masked), speedup(sparse, plain)
        rows.append((time_masked, time_plain, masked.peak / sparse.peak, masked.macs / sparse.macs))
        print(
            f" {ratio:4.2f} | {time_masked:14.2f} ({low:5.2f}-{high:5.2f}) {rows[-1][2]:8.2f} {rows[-1][3]:10.2f} |"
            f" {time_plain:13.2f} ({plain_low:5.2f}-{plain_high:5.2f}) {plain.peak / sparse.peak:8.2f}",
            flush=True,
        )
    times_masked, times_plain, memory, products = zip(*rows, strict=True)
    print(f"sparse is faster than masked-dense from r0 {crossover(args.ratios, times_masked)}")
    print(f"sparse is faster than plain dense from r0 {crossover(args.ratios, times_plain)}")
    if args.out:
        plot(args, {"time": times_masked, "peak memory": memory, "MACs": products})


def plot(args: argparse.Namespace, curves: dict[str, Sequence[float]]) -> None:
    """Ratios to masked-dense over the visible share."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullLocator

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, values in curves.items():
        axes.plot([1 - ratio for ratio in args.ratios], values, marker="o", label=name)
    axes.axhline(1, color="grey", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="visible share, 1 - r0", ylabel="masked-dense / sparse")
    axes.set_xticks([1 - ratio for ratio in args.ratios], [f"{1 - ratio:.2f}" for ratio in args.ratios], rotation=60)
    axes.set_xticks([], minor=True)
    # Plain numbers, and between the decades, too.
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(args.out, dpi=120)


class MaskedDenseEncoder(nn.Module):
    """The same encoder for MaskedAutoencoder, computed densely."""

    def __init__(self, encoder: SparseEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.num_features, self.reduction = encoder.num_features, encoder.reduction

    def forward(self, frames: Tensor, visible: Tensor) -> Tensor:
        """(N, C, H, W) to (N, dim, h, w)."""
        return masked_dense(self.encoder, frames.contiguous(memory_format=torch.channels_last), visible)


def step(args: argparse.Namespace) -> None:
    """A whole pretraining step (forward, loss, backward, Adam), the encoder sparse, then masked-dense."""
    from plasm.models import MaskedAutoencoder  # type: ignore[import-not-found, unused-ignore]
    from plasm.models.plasm import Decoder  # type: ignore[import-not-found, unused-ignore]

    device, dtype = args.device, getattr(torch, args.dtype)
    clip = torch.rand(args.frames // 10, 10, 1, args.size, args.size).to(device)
    visible = exact_mask(clip.shape[0] * 10, args.size, args.step_ratio, device)

    def training(masked: bool) -> Callable[[], None]:
        torch.manual_seed(0)
        encoder = SparseEncoder(1, args.dim, args.depth)
        model = MaskedAutoencoder(
            MaskedDenseEncoder(encoder) if masked else encoder,
            Decoder(args.dim, 1, args.depth),
            args.step_ratio,
        )
        move(model, torch.device(device))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

        def run() -> None:
            optimizer.zero_grad()
            with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                loss = F.mse_loss(model(clip, visible).float(), clip)
            torch.autograd.backward(loss)
            optimizer.step()

        return run

    runs = [training(masked=False), training(masked=True)]
    sparse, masked = (
        Result(times, peak_memory(run, device), 0)
        for times, run in zip(in_turn(runs, args.rounds, device), runs, strict=True)
    )
    median, low, high = speedup(sparse, masked)
    print(
        f"pretraining step, {args.frames // 10} clips of 10 frames, r0 {args.step_ratio}, {args.dtype}, {device}: "
        f"masked-dense / sparse: time {median:.2f} ({low:.2f}-{high:.2f}), memory {masked.peak / sparse.peak:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS, help="mask ratios r0")
    parser.add_argument("--frames", type=int, default=160)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--out", help="where to write the plot")
    parser.add_argument("--step", action="store_true", help="time a whole pretraining step instead")
    parser.add_argument("--step-ratio", type=float, default=0.96, help="r0 of --step")
    args = parser.parse_args()
    step(args) if args.step else table(args)


if __name__ == "__main__":
    main()
