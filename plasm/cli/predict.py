"""The command that predicts."""

from typing import Any

import click

from plasm.prediction import PredictConfig
from plasm.prediction import predict as run

from .options import given, options
from .tables import print_metrics

__all__ = ["predict"]


@click.command()
@options(PredictConfig)
def predict(**arguments: Any) -> None:
    """Predict the frames that follow a clip, draw them, and measure them where the truth is known.

    Of a clip long enough for input and truth, the first frames are the input; of a shorter one the last.
    """
    done = run(PredictConfig(**given(arguments)))
    click.echo(f"{len(done.clip)} clip(s), {done.clip.shape[1]} -> {done.frames.shape[1]} frames: {done.saved}")
    if done.metrics is not None:
        print_metrics(done.metrics)
