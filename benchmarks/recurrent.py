r"""Recurrent models against a plain step loop of the same weights, forward and training step, in turn in one run.

The plain loop is what a first writing of PredRNN and ConvLSTM is: every step convolves its frame, the hidden state and
the memory, zeros at the start too, each gate gets its convolution's part, every step's output becomes a frame; memory
is in torch's ordinary order. Ours convolves all known frames at once, leaves out the convolutions of zeros and the
frames nobody asks for, and has channels last, as the trainer has; 5x5 kernels of 64 channels or more take Winograd's
multiplications. Both give the same forecasts, which is checked first.
The time is the processor's, of this process, which a busy neighbour stretches less than the clock's. At the end stands
the memory that a training step takes, with and without ``set_grad_checkpointing``.

Usage: python benchmarks/recurrent.py [--model predrnn_mmnist] [--batch-size 4] [--rounds 3] [NAME=VALUE ...]
"""

import ast
import copy
import statistics
import time
from typing import Any

import click
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import plasm  # noqa: F401
from plasm.benchmark import peak_memory
from plasm.devices import move
from plasm.layers.convlstm import GateConv
from plasm.models._recurrent import patchify, unpatchify


def conv(gates: GateConv, x: Tensor) -> Tensor:
    """Torch's convolution, and its norm, where ``GateConv`` has one of its own."""
    y = nn.Conv2d.forward(gates.conv, x)
    return y if gates.norm is None else gates.norm(y)


class PlainLoop(nn.Module):
    """ConvLSTM or PredRNN, step after step."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, clip: Tensor) -> Tensor:
        """(B, T, C, H, W) to (B, T', C, H, W)."""
        model: Any = self.model
        first = patchify(clip[:, 0], model.patch_size)
        zeros = [first.new_zeros(len(clip), dim, *first.shape[2:]) for dim in model.hidden_dims]
        h, c, m, frame = list(zeros), list(zeros), zeros[0], clip[:, 0]
        frames = []
        for step in range(model.in_frames + model.out_frames - 1):
            x = patchify(clip[:, step] if step < model.in_frames else frame, model.patch_size)
            for layer, cell in enumerate(model.cells):
                if hasattr(cell, "conv_m"):
                    h[layer], c[layer], m = self._st_lstm(cell, x, h[layer], c[layer], m)
                else:
                    h[layer], c[layer] = self._conv_lstm(cell, x, h[layer], c[layer])
                x = h[layer]
            frame = unpatchify(model.readout(x), model.patch_size)
            frames.append(frame)
        return torch.stack(frames[-model.out_frames :], 1)

    def _conv_lstm(self, cell: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i_x, f_x, g_x, o_x = conv(cell.conv_x, x).chunk(4, 1)
        i_h, f_h, g_h, o_h = conv(cell.conv_h, h).chunk(4, 1)
        i, f, o = torch.sigmoid(i_x + i_h), torch.sigmoid(f_x + f_h), torch.sigmoid(o_x + o_h)
        c = f * c + i * torch.tanh(g_x + g_h)
        return o * torch.tanh(c), c

    def _st_lstm(self, cell: Any, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        i_x, f_x, g_x, ii_x, ff_x, gg_x, o_x = conv(cell.conv_x, x).chunk(7, 1)
        i_h, f_h, g_h, o_h = conv(cell.conv_h, h).chunk(4, 1)
        i_m, f_m, g_m = conv(cell.conv_m, m).chunk(3, 1)
        c = torch.sigmoid(f_x + f_h + 1.0) * c + torch.sigmoid(i_x + i_h) * torch.tanh(g_x + g_h)
        m = torch.sigmoid(ff_x + f_m + 1.0) * m + torch.sigmoid(ii_x + i_m) * torch.tanh(gg_x + g_m)
        memory = torch.cat([c, m], 1)
        o = torch.sigmoid(o_x + o_h + conv(cell.conv_o, memory))
        return o * torch.tanh(cell.conv_last(memory)), c, m


def seconds(net: nn.Module, clip: Tensor, target: Tensor, train: bool) -> float:
    """Of one forward pass, or of one with its backward pass."""
    started = time.process_time()
    with torch.set_grad_enabled(train):
        out = net(clip)
    if train:
        F.mse_loss(out, target).backward()
        net.zero_grad()
    return time.process_time() - started


def convolutions(net: nn.Module, clip: Tensor, target: Tensor, train: bool) -> float:
    """Share of the processor's time that goes to convolutions: what no other order of the steps can save."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        seconds(net, clip, target, train)
    taken = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    return sum(value for key, value in taken.items() if "conv" in key.lower()) / sum(taken.values())


@click.command()
@click.option("--model", "name", default="predrnn_mmnist")
@click.option("--batch-size", default=4)
@click.option("--rounds", default=3)
@click.argument("arguments", nargs=-1)
def main(name: str, batch_size: int, rounds: int, arguments: tuple[str, ...]) -> None:
    """Print clips a second of both, the ratio, and the share of convolutions."""
    args = {key: ast.literal_eval(value) for key, value in (text.split("=") for text in arguments)}
    model = timm.create_model(name, **args)
    plain = PlainLoop(copy.deepcopy(model))
    clip = torch.rand(batch_size, model.in_frames, model.in_chans, *model.img_size)
    target = torch.rand(batch_size, model.out_frames, model.in_chans, *model.img_size)
    model = move(model, torch.device("cpu"))
    with torch.no_grad():
        torch.testing.assert_close(model(clip), plain(clip), atol=1e-4, rtol=1e-4)
    for kind, train in (("forward", False), ("training step", True)):
        times: dict[str, list[float]] = {"plain loop": [], "plasm": []}
        for number in range(rounds + 1):
            for who, net in (("plain loop", plain), ("plasm", model)):
                taken = seconds(net, clip, target, train)
                if number:  # the first round warms up
                    times[who].append(taken)
        rates = {who: batch_size / statistics.median(values) for who, values in times.items()}
        ratio = rates["plasm"] / rates["plain loop"]
        share = convolutions(model, clip, target, train)
        print(f"{name} {kind}: " + ", ".join(f"{who} {rate:.2f}/s" for who, rate in rates.items()) + f", {ratio:.2f}x")
        print(f"{name} {kind}: {share:.0%} of plasm's time are convolutions")
    for keeps in ("all activations", "with set_grad_checkpointing"):
        model.set_grad_checkpointing(keeps != "all activations")
        taken = peak_memory(lambda: seconds(model, clip, target, train=True), torch.device("cpu"))
        print(f"{name} training step: {taken / 2**20:.0f} MiB, {keeps}")


if __name__ == "__main__":
    main()
