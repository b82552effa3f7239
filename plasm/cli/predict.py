"""The command that predicts."""

from typing import Any

import click

from plasm.evaluation import metrics_table
from plasm.prediction import PredictConfig
from plasm.prediction import predict as run

from .options import given, options
from .rain import predict_radar

__all__ = ["predict"]

_TITLES = {"mmnist": "Moving MNIST"}


@click.command()
@options(PredictConfig)
def predict(**arguments: Any) -> None:
    """Predict the frames that follow a clip, draw them, and measure them where the truth is known.

    Of a clip long enough for input and truth, the first frames are the input; of a shorter one the last. Of radar
    (--data radar) the last frames are the input, and the forecast is NetCDF: see docs/rain.md.
    """
    config = PredictConfig(**given(arguments))
    if config.data == "radar":
        predict_radar(config)
        return
    done = run(config)
    click.echo(f"predicted by {done.source}")
    click.echo(f"{len(done.clip)} clip(s), {done.clip.shape[1]} -> {done.frames.shape[1]} frames: {done.saved}")
    if done.drawn < len(done.clip):
        click.echo(f"the first {done.drawn} of {len(done.clip)} clips are drawn")
    if (channels := done.frames.shape[2]) > 3:
        click.echo(f"of {channels} channels the first is drawn, in gray")
    if done.metrics is not None:
        click.echo(metrics_table(done.metrics))
        own, still = (done.metrics[name].means for name in ("model", "last frame"))
        if own["mse"] > still["mse"]:
            click.echo(
                f"the forecast scores below the last frame repeated (PSNR {own['psnr']:.1f} against "
                f"{still['psnr']:.1f} dB): these weights do not know such clips"
            )
    if done.published is not None:
        model = done.published.model
        data = _TITLES.get(done.published.data, done.published.data)
        click.echo(
            f"the weights of {model} were trained on {data} and know nothing else: a forecast of other scenes needs "
            f"training on them: plasm train --model {model} --data clips --data-dir FOLDER --out RUN --data-arg "
            f"channels=3 --model-arg in_chans=3; then plasm predict --weights RUN --input FILE",
            err=True,
        )
