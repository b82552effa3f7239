"""The scores of a model's PLA blocks over test clips: does a head tell clips apart, or is it a constant?

Usage: python benchmarks/scores.py WEIGHTS ... --data-dir DIR

WEIGHTS as --weights of `plasm evaluate`, of a model of Moving MNIST with the global form of attention.
"""

from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from plasm.data import create_dataset
from plasm.layers import PairwiseLayerAttention
from plasm.loading import frame_counts, load_model


@torch.inference_mode()
def scores(model: Any, clips: Tensor) -> list[Tensor]:
    """Each block's scores, from 0 to 1, (B, heads)."""
    layers = [layer for layer in model.modules() if isinstance(layer, PairwiseLayerAttention)]
    if others := {layer.attention for layer in layers} - {"global"}:
        raise click.UsageError(
            f"only the global form of attention has one score a head; this model's is {others.pop()!r}"
        )
    found: list[Tensor] = []
    hooks = [layer.register_forward_pre_hook(lambda layer, args: found.append(layer.scores(*args))) for layer in layers]
    model(clips)
    for hook in hooks:
        hook.remove()
    return found


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="WEIGHTS ...")
@click.option("--data-dir", required=True, type=Path, help="Folder of the digits' files.")
@click.option("--num-clips", default=100)
def main(sources: tuple[str, ...], data_dir: Path, num_clips: int) -> None:
    """Print mean and standard deviation of each head's score over the clips."""
    for source in sources:
        model = load_model(None, source).eval()
        in_frames, out_frames = frame_counts(model)
        dataset: Any = create_dataset("mmnist", data_dir, "test", num_frames=in_frames + out_frames)
        clips = torch.stack([dataset[index][:in_frames] for index in range(num_clips)])
        click.echo(source)
        for number, block in enumerate(scores(model, clips)):
            heads = zip(block.mean(0).tolist(), block.std(0).tolist(), strict=True)
            click.echo(f"  PLA block {number}" + "".join(f"{mean:>10.4f} +- {std:<8.1e}" for mean, std in heads))


if __name__ == "__main__":
    main()
