# ruff: noqa: D101, D102, N803 - plain networks by the names of another code
"""SimVP, gSTA and TAU of plasm against the same networks written plainly, in turn in one run, on a CPU.

Usage: python benchmarks/simvp.py [--rounds 5] [--batch-size 4] [--dtype float32] [--threads 2] [--parity FOLDER]

The plain networks are torch's modules and nothing else, with the tensors' names that OpenSTL gives them. By --parity
they are first held against the reference files of that folder, as plasm's are in its tests. Each is timed contiguous
and channels last, in the processor's time of this process, which a busy neighbour stretches less than the clock's; of a
model's two layouts the better counts.
"""

import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import timm
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from plasm.cpu import speed_up
from plasm.devices import keep_freed_memory


class ConvNormAct(nn.Module):
    """Convolution, pixel shuffle if it is to double the size, GroupNorm(2), SiLU."""

    def __init__(self, in_dim: int, dim: int, stride: int = 1, up: bool = False) -> None:
        super().__init__()
        conv = nn.Conv2d(in_dim, 4 * dim if up else dim, 3, stride, 1)
        inner: Any = nn.Module()
        inner.conv = nn.Sequential(conv, nn.PixelShuffle(2)) if up else conv
        inner.norm = nn.GroupNorm(2, dim)
        self.conv: Any = inner

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.conv.norm(self.conv.conv(x)))


class Coder(nn.Module):
    """A stack of blocks under the name that OpenSTL gives it."""

    def __init__(self, name: str, blocks: list[ConvNormAct]) -> None:
        super().__init__()
        self.add_module(name, nn.Sequential(*blocks))


class GroupConv(nn.Module):
    def __init__(self, in_dim: int, dim: int, size: int) -> None:
        super().__init__()
        groups = 8 if in_dim % 8 == 0 else 1
        self.conv = nn.Conv2d(in_dim, dim, size, padding=size // 2, groups=groups)
        self.norm = nn.GroupNorm(groups, dim)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), 0.2)


class Inception(nn.Module):
    def __init__(self, in_dim: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_dim, hidden, 1)
        self.layers = nn.ModuleList(GroupConv(hidden, dim, size) for size in (3, 5, 7, 11))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return sum(layer(x) for layer in self.layers)


class InceptionNet(nn.Module):
    def __init__(self, in_dim: int, dim: int, depth: int) -> None:
        super().__init__()
        ins = [in_dim] + [dim] * (depth - 1)
        self.enc = nn.ModuleList(Inception(each, dim // 2, dim) for each in ins)
        outs = [dim] * (depth - 1) + [in_dim]
        self.dec = nn.ModuleList(Inception(2 * dim if i else dim, dim // 2, out) for i, out in enumerate(outs))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.enc:
            x = block(x)
            skips.append(x)
        for index, block in enumerate(self.dec):
            x = block(torch.cat([x, skips[-1 - index]], 1) if index else x)
        return x


class Gate(nn.Module):
    """The large kernels, and what TAU or gSTA makes of them."""

    def __init__(self, dim: int, tau: bool) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.conv_spatial = nn.Conv2d(dim, dim, 7, padding=9, dilation=3, groups=dim)
        self.conv1 = nn.Conv2d(dim, dim if tau else 2 * dim, 1)
        if tau:
            width = dim // max(dim // 16, 4)
            self.fc = nn.Sequential(
                nn.Linear(dim, width, bias=False), nn.ReLU(), nn.Linear(width, dim, bias=False), nn.Sigmoid()
            )

    def forward(self, x: Tensor) -> Tensor:
        a = self.conv1(self.conv_spatial(self.conv0(x)))
        if hasattr(self, "fc"):
            return self.fc(x.mean((2, 3)))[:, :, None, None] * a * x
        f, g = a.chunk(2, 1)
        return torch.sigmoid(g) * f


class Attention(nn.Module):
    def __init__(self, dim: int, tau: bool) -> None:
        super().__init__()
        self.proj_1, self.spatial_gating_unit = nn.Conv2d(dim, dim, 1), Gate(dim, tau)
        self.proj_2 = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.proj_2(self.spatial_gating_unit(F.gelu(self.proj_1(x))))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(dim, hidden, 1), nn.Conv2d(hidden, dim, 1)
        self.dwconv: Any = nn.Module()
        self.dwconv.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.dwconv.dwconv(self.fc1(x))))


class Block(nn.Module):
    def __init__(self, dim: int, mlp_ratio: float, tau: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(dim), nn.BatchNorm2d(dim)
        self.attn, self.mlp = Attention(dim, tau), Mlp(dim, int(dim * mlp_ratio))
        self.layer_scale_1, self.layer_scale_2 = (nn.Parameter(torch.full((dim,), 1e-2)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer_scale_1[:, None, None] * self.attn(self.norm1(x))
        return x + self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x))


class Layer(nn.Module):
    def __init__(self, in_dim: int, dim: int, mlp_ratio: float, tau: bool) -> None:
        super().__init__()
        self.block = Block(in_dim, mlp_ratio, tau)
        if in_dim != dim:
            self.reduction = nn.Conv2d(in_dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(x)
        return self.reduction(x) if hasattr(self, "reduction") else x


class MetaNet(nn.Module):
    def __init__(self, in_dim: int, dim: int, depth: int, mlp_ratio: float, tau: bool) -> None:
        super().__init__()
        dims = [in_dim] + [dim] * (depth - 1) + [in_dim]
        self.enc = nn.Sequential(*(Layer(a, b, mlp_ratio, tau) for a, b in itertools.pairwise(dims)))

    def forward(self, x: Tensor) -> Tensor:
        return self.enc(x)


class PlainSimVP(nn.Module):
    """(B, T, C, H, W) -> the next T frames. ``kind`` is "incepu", "gsta" or "tau"; the rest by OpenSTL's names."""

    def __init__(
        self, kind: str, frames: int, chans: int, hid_S: int, hid_T: int, N_S: int, N_T: int, mlp_ratio: float = 8.0
    ) -> None:
        super().__init__()
        self.enc: Any = Coder("enc", [ConvNormAct(hid_S if i else chans, hid_S, 1 + i % 2) for i in range(N_S)])
        self.dec: Any = Coder("dec", [ConvNormAct(hid_S, hid_S, up=i % 2 == 0) for i in range(N_S)])
        self.dec.readout = nn.Conv2d(hid_S, chans, 1)
        joined = frames * hid_S
        self.hid = (
            InceptionNet(joined, hid_T, N_T)
            if kind == "incepu"
            else MetaNet(joined, hid_T, N_T, mlp_ratio, kind == "tau")
        )

    def forward(self, clip: Tensor) -> Tensor:
        batch, frames = clip.shape[:2]
        first = x = self.enc.enc[0](clip.flatten(0, 1))
        for block in self.enc.enc[1:]:
            x = block(x)
        x = self.hid(x.reshape(batch, -1, *x.shape[2:])).reshape(batch * frames, -1, *x.shape[2:])
        for block in self.dec.dec[:-1]:
            x = block(x)
        out = self.dec.readout(self.dec.dec[-1](x + first))
        return out.reshape(batch, frames, *out.shape[1:])


def check(folder: Path, kinds: dict[str, str]) -> None:
    """Hold the plain networks against what OpenSTL's own code computed."""
    for kind, name in kinds.items():
        with safe_open(folder / f"openstl_SimVP_{name}.safetensors", "pt") as file:
            config = json.loads(file.metadata()["config"])
            tensors = {key.removeprefix("model."): file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        clip, expected = tensors.pop("input"), tensors.pop("output")
        sizes = {key: config[key] for key in ("hid_S", "hid_T", "N_S", "N_T", "mlp_ratio")}
        model = PlainSimVP(kind, *config["in_shape"][:2], **sizes).eval()
        model.load_state_dict(tensors)
        with torch.no_grad():
            once = model(clip)
            out = torch.cat([once, model(once)], 1)[:, : expected.shape[1]]
        error = ((out - expected).abs().max() / expected.abs().max()).item()
        print(f"plain {kind}: {error:.1e} of the largest value from the reference file")
        assert error < 1e-5


def steps(model: nn.Module, batch_size: int, dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    """What is timed."""
    clip, target = torch.rand(2, batch_size, 10, 1, 64, 64).unbind(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    half = dtype != torch.float32

    def forward() -> None:
        model.eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            model(clip)

    def train() -> None:
        model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = model(clip)
        F.mse_loss(out.float(), target).backward()
        optimizer.step()
        optimizer.zero_grad()

    return {"forward": forward, "training": train}


@click.command()
@click.option("--rounds", default=5)
@click.option("--batch-size", default=4)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32")
@click.option("--threads", default=2)
@click.option("--kinds", default="incepu,gsta,tau")
@click.option("--parity", type=Path, help="Folder of reference files.")
def main(rounds: int, batch_size: int, dtype: str, threads: int, kinds: str, parity: Path | None) -> None:
    """Print clips a second of the plain networks and of plasm's, and how much faster those are."""
    torch.set_num_threads(threads)
    keep_freed_memory(torch.device("cpu"))
    references = {"incepu": "IncepU", "gsta": "gSTA", "tau": "TAU"}
    names = {"incepu": "simvp_mmnist", "gsta": "simvp_gsta_mmnist", "tau": "tau_mmnist"}
    if parity:
        check(parity, references)
    for kind in kinds.split(","):
        timed: dict[tuple[str, str], dict[str, Callable[[], Any]]] = {}
        for layout in ("contiguous", "channels_last"):
            plain = PlainSimVP(kind, 10, 1, 64, 512, 4, 8)
            for name, model in (("plain", plain), ("plasm", speed_up(timm.create_model(names[kind])))):
                if layout == "channels_last":
                    model = model.to(memory_format=torch.channels_last)
                timed[name, layout] = steps(model, batch_size, getattr(torch, dtype))
        for mode in ("forward", "training"):
            seconds: dict[tuple[str, str], list[float]] = {key: [] for key in timed}
            for number in range(rounds + 1):
                for key, functions in timed.items():
                    started = time.process_time()
                    functions[mode]()
                    if number:
                        seconds[key].append((time.process_time() - started) / threads)
            best = {
                name: min(statistics.median(taken) for key, taken in seconds.items() if key[0] == name)
                for name in ("plain", "plasm")
            }
            each = ", ".join(f"{' '.join(key)} {batch_size / statistics.median(t):.2f}" for key, t in seconds.items())
            print(f"{kind} {mode} {dtype}: {best['plain'] / best['plasm']:.2f}x ({each})", flush=True)


if __name__ == "__main__":
    main()
