"""Does a model use its PLA scores? Its error with them, and with others in their place.

Usage: python benchmarks/scores.py WEIGHTS ... --data-dir DIR [--out FILE.csv]

WEIGHTS as --weights of `plasm evaluate`, of a model of Moving MNIST with the global form of attention. A score that
varies between clips need not matter, so each head's score is replaced by its mean over the clips, by that of another
clip, and by 1, and the error measured each time. Where the mean does as well, the head is a constant, which folds into
the depthwise convolution before it.
"""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from plasm.data import create_dataset
from plasm.evaluation import frame_mse
from plasm.files import atomic_write, check_writable
from plasm.layers import PairwiseLayerAttention
from plasm.models import frame_counts, load_model

Replacement = Callable[[Tensor], Tensor]

BATCH = 20
VARIANTS: dict[str, Replacement | None] = {
    "as they are": None,
    "mean over clips": lambda scores: scores.mean(0, keepdim=True).expand_as(scores),
    "another clip's": lambda scores: scores.roll(1, 0),
    "all 1": torch.ones_like,
}
"""What stands in the place of the scores of all clips, (clips, heads), of each block."""


def pla_layers(model: Any) -> list[PairwiseLayerAttention]:
    """The PLA blocks of a model, all of the global form.

    Raises:
        click.UsageError: If one is of another form, or there is none.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, PairwiseLayerAttention)]
    if not layers or (others := {layer.attention for layer in layers} - {"global"}):
        form = f"this model's is {others.pop()!r}" if layers else "this model has no PLA"
        raise click.UsageError(f"only the global form of attention has one score a head; {form}")
    return layers


@torch.inference_mode()
def scores(model: Any, clips: Tensor) -> list[Tensor]:
    """Each block's scores, from 0 to 1, (B, heads)."""
    found: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda layer, args: found.append(layer.scores(*args)))
        for layer in pla_layers(model)
    ]
    for batch in clips.split(BATCH):
        model(batch)
    for hook in hooks:
        hook.remove()
    blocks = len(hooks)
    return [torch.cat(found[block::blocks]) for block in range(blocks)]


@torch.inference_mode()
def error(model: Any, clips: Tensor, targets: Tensor, replaced: Sequence[Tensor] | None) -> float:
    """Frame MSE with other scores, (B, heads) of each block, in the place of the model's own."""
    layers = pla_layers(model)
    own = [layer.scores for layer in layers]
    total = 0.0
    try:
        for start in range(0, len(clips), BATCH):
            part = slice(start, start + BATCH)
            for layer, values in zip(layers, replaced or (), strict=False):
                layer.scores = lambda low, high, values=values[part]: values  # type: ignore[method-assign, misc]
            total += frame_mse(model(clips[part]), targets[part]).mean(1).sum().item()
    finally:
        for layer, method in zip(layers, own, strict=True):
            layer.scores = method  # type: ignore[method-assign]
    return total / len(clips)


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="WEIGHTS ...")
@click.option("--data-dir", required=True, type=Path, help="Folder of the digits' files.")
@click.option("--num-clips", default=200, show_default=True, help="The first so many of the test set.")
@click.option("--out", type=Path, help="CSV of the errors.")
def main(sources: tuple[str, ...], data_dir: Path, num_clips: int, out: Path | None) -> None:
    """Print each head's score, and the error with other scores in its place."""
    if out:
        # What follows takes minutes.
        check_writable(out)
    lines = []
    for source in sources:
        model = load_model(None, source).eval()
        in_frames, out_frames = frame_counts(model)
        dataset: Any = create_dataset("mmnist", data_dir, "test", num_frames=in_frames + out_frames)
        clips = torch.stack([dataset[index] for index in range(num_clips)])
        clip, target = clips[:, :in_frames], clips[:, in_frames:]
        own = scores(model, clip)
        click.echo(f"{source}, {num_clips} test clips")
        for number, block in enumerate(own):
            heads = zip(block.mean(0).tolist(), block.std(0).tolist(), strict=True)
            click.echo(f"  PLA block {number}" + "".join(f"{mean:>10.4f} +- {std:<8.1e}" for mean, std in heads))
        for name, replacement in VARIANTS.items():
            mse = error(model, clip, target, replacement and [replacement(block) for block in own])
            click.echo(f"  {name:<16}MSE {mse:.3f}")
            lines.append((source, num_clips, name, f"{mse:.3f}"))
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(out) as beside, beside.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows([("weights", "clips", "scores", "mse"), *lines])


if __name__ == "__main__":
    main()
