"""The scores of a model's PLA blocks over test clips: a sigmoid far out in a tail is a constant, on or off.

Usage: python benchmarks/scores.py WEIGHTS ... --data-dir DIR

WEIGHTS as --weights of `plasm evaluate`, of a model of Moving MNIST with the global form of attention.
"""

import math
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from plasm import training
from plasm.data import create_dataset
from plasm.layers import PairwiseLayerAttention


@torch.inference_mode()
def scores(model: Any, clips: Tensor) -> list[Tensor]:
    """Each block's scores before the sigmoid, (B, heads)."""
    outputs: dict[Any, Tensor] = {}
    layers = [layer for layer in model.modules() if isinstance(layer, PairwiseLayerAttention)]
    if others := {layer.attention for layer in layers} - {"global"}:
        raise click.UsageError(
            f"only the global form of attention has one score a head; this model's is {others.pop()!r}"
        )
    for layer in layers:
        for projection in (layer.query, layer.key):
            projection.register_forward_hook(lambda module, _, output: outputs.update({module: output}))
    model(clips)
    found = []
    for layer in layers:
        products = (outputs[layer.query] * outputs[layer.key]).reshape(len(clips), layer.num_heads, -1)
        found.append(products.sum(-1) / math.sqrt(products.shape[-1]))
    return found


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="WEIGHTS ...")
@click.option("--data-dir", required=True, type=Path, help="Folder of the digits' files.")
@click.option("--num-clips", default=100)
def main(sources: tuple[str, ...], data_dir: Path, num_clips: int) -> None:
    """Print mean and standard deviation of each head's score over the clips."""
    for source in sources:
        model = training.load_model(None, source).eval()
        in_frames, out_frames = training.frame_counts(model)
        dataset: Any = create_dataset("mmnist", data_dir, "test", num_frames=in_frames + out_frames)
        clips = torch.stack([dataset[index][:in_frames] for index in range(num_clips)])
        click.echo(source)
        for number, block in enumerate(scores(model, clips)):
            heads = zip(block.mean(0).tolist(), block.std(0).tolist(), strict=True)
            click.echo(f"  PLA block {number}" + "".join(f"{mean:>10.1f} +- {std:<7.1f}" for mean, std in heads))


if __name__ == "__main__":
    main()
