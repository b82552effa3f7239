"""The command that predicts."""

import shlex
from collections.abc import Sequence
from typing import Any

import click

from plasm import weights
from plasm.evaluation import BASELINES, metrics_table
from plasm.models import recipe, summarize
from plasm.prediction import PredictConfig, Prediction
from plasm.prediction import predict as run
from plasm.training import TrainConfig
from plasm.training.outlook import training_options

from .options import given, options
from .rain import predict_radar

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
    if done.metrics is not None:
        still = done.metrics["last frame"].means
        for name in [name for name in done.metrics if name not in BASELINES]:
            own = done.metrics[name].means
            if own["mse"] > still["mse"]:
                click.echo(
                    f"the forecast{'' if name == 'model' else f' of {name}'} scores below the last frame repeated "
                    f"(MSE {own['mse']:.2f} against {still['mse']:.2f}): these weights do not suit such clips"
                )
    if len(done.published) > 1:
        click.echo(_trainings(done.published))
    # The package's own clips are of Moving MNIST.
    if done.published and (config.input is not None or any(row.data != "mmnist" for row in done.published)):
        titles = " or ".join(dict.fromkeys(_title(row) for row in done.published))
        click.echo(f"these weights were trained on {titles} alone; other scenes need weights of their own.", err=True)
        if len(done.published) == 1 and config.input is not None:
            click.echo(_advice(config, done, done.published[0]), err=True)


def _title(row: weights.Entry) -> str:
    return _TITLES.get(row.data, row.data)


def _trainings(rows: Sequence[weights.Entry]) -> str:
    """How much the weights that are compared were trained, and a warning where it is not alike."""
    alike: dict[tuple[int, str], list[str]] = {}
    for row in rows:
        alike.setdefault((row.clips, _title(row)), []).append(row.name)
    if len(alike) == 1:
        ((clips, title),) = alike
        return f"each was trained on {clips:,} clips of {title}"
    lines = [f"trained on {clips:,} clips of {title}: {', '.join(names)}" for (clips, title), names in alike.items()]
    return "\n".join([*lines, "so their errors compare trainings as well as models"])


def _advice(config: PredictConfig, done: Prediction, row: weights.Entry) -> str:
    """Commands that train weights for videos like the user's clip."""
    stream, model, summary = done.stream, row.model, summarize(row.model)
    span = (summary.input_shape[0] + summary.output_shape[0] - 1) * config.step + 1
    if stream.num_frames < span:
        return f"Training takes videos of {span} frames or more; see docs/videos.md"
    batch = recipe(model, "train").get("batch_size", TrainConfig.batch_size)
    channels = min(stream.channels, 3)
    init = model if row == weights.entry(model) else row.name
    options, size = training_options(
        init, row.model_args, batch, summary.input_shape[1], (stream.num_frames, channels, stream.size), span
    )
    read = "".join(f" --data-arg {shlex.quote(f'{name}={value}')}" for name, value in config.data_args.items())
    step, shape = f" --step {config.step}" * (config.step > 1), f" --size {size[0]} {size[1]}" * (size != stream.size)
    step_arg = f" --data-arg step={config.step}" * (config.step > 1)
    return (
        "With ten videos like this one in FOLDER:\n"
        f"  plasm train --model {model} {' '.join(options)}{step_arg}{read} --out RUN\n"
        f"  plasm predict --weights RUN --input FILE{shape}{step}{read}\n"
        "`plasm train` says how many steps yours make; about 2,000 are needed. See docs/videos.md"
    )
