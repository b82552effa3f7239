"""Commands that train and measure."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from plasm import data, evaluation, training, weights
from plasm.devices import choose_device, clear_failures, move
from plasm.distributed import join_world
from plasm.loading import frame_counts, load_model
from plasm.metrics import load_lpips
from plasm.runs import record_metrics
from plasm.weights.card import without_folder
from plasm.weights.files import WEIGHTS_NAME

from .options import GroupedCommand, given, options
from .rain import evaluate_radar
from .tables import print_metrics

__all__ = ["evaluate", "pretrain", "train"]

# How a run is made, where the options above say what it is.
_RUN_OPTIONS: dict[str, dict[str, Any]] = {
    "--config": {
        "type": click.Path(path_type=Path),
        "help": "TOML file with a key for each of these options (`model_args` and the like are tables), such as "
        "RUN/config.toml; what is given here goes over it.",
    },
    "--resume": {
        "is_flag": True,
        "help": "Go on from the last checkpoint in --out, bit for bit; from the start if there is none.",
    },
    "--allow-changed-data": {
        "is_flag": True,
        "help": "With --resume: go on, with a warning, where the data set's files are not those that the run has seen.",
    },
    "--fast-dev-run": {
        "is_flag": True,
        "help": "Go through every stage with a few clips, to see that nothing fails, and keep nothing.",
    },
}


_GROUPS = {
    "Model and data": ("model", "model_args", "init", "freeze_encoder", "data", "data_dir", "data_args"),
    "Run": (
        "out", "config", "resume", "allow_changed_data", "fast_dev_run", "eval_every", "val_clips",
        "checkpoint_minutes",
    ),
    "Steps": ("epochs", "clips_per_epoch", "batch_size", "accumulate", "rollout", "task_args", "seed"),
    "Optimizer": ("optimizer", "opt_args", "lr", "layer_decay", "weight_decay", "clip_grad", "ema"),
    "Schedule": ("schedule", "warmup_epochs", "warmup_steps", "decay_epochs"),
    "Masking": ("mask_ratio", "mask_ratio_end", "mask_patch", "spatial_masking", "attn_mask_ratio"),
    "Machine": ("device", "bf16", "compile", "workers"),
}  # fmt: skip


def _run_options(command: Callable[..., None]) -> Callable[..., None]:
    for name, kwargs in reversed(_RUN_OPTIONS.items()):
        command = click.option(name, **kwargs)(command)
    return command


def _run(kind: type[Any], arguments: dict[str, Any]) -> None:
    file = arguments.pop("config")
    how = {name: arguments.pop(name) for name in ("resume", "fast_dev_run", "allow_changed_data")}
    training.run(training.make_config(kind, given(arguments), file), **how)


@click.command(cls=GroupedCommand, groups=_GROUPS)
@_run_options
@options(training.PretrainConfig)
def pretrain(**arguments: Any) -> None:
    """Phase 1: learn encoder and decoder by rebuilding masked clips.

    Defaults are the model's recipe: its paper's, its authors' or OpenSTL's. Those below hold where it has none.
    """
    _run(training.PretrainConfig, arguments)


@click.command(cls=GroupedCommand, groups=_GROUPS)
@_run_options
@options(training.TrainConfig)
def train(**arguments: Any) -> None:
    """Phase 2: learn to predict future frames.

    Defaults are the model's recipe: its paper's, its authors' or OpenSTL's. Those below hold where it has none.
    """
    _run(training.TrainConfig, arguments)


@click.command()
@options(evaluation.EvaluateConfig)
def evaluate(**arguments: Any) -> None:
    """Measure a model on the test set, beside two forecasts that need no model.

    Of radar they are persistence and optical flow, on whole composites: see docs/rain.md.
    Of weights in a folder, what was measured of clips is written beside them, for the card of `plasm push`:
    metrics.json.
    """
    config = evaluation.EvaluateConfig.make(given(arguments))
    folder = Path(config.weights) if config.weights is not None and Path(config.weights).is_dir() else None
    sha256 = weights.file_sha256(folder / WEIGHTS_NAME) if folder and (folder / WEIGHTS_NAME).is_file() else ""
    net = load_model(config.model, config.weights, trust=config.trust)
    if sha256 and folder and weights.file_sha256(folder / WEIGHTS_NAME) != sha256:
        # What is measured is written down as that of this file.
        raise OSError(f"{folder / WEIGHTS_NAME} changed while it was loaded: a run trains there; try again")
    if config.data == "radar":
        evaluate_radar(config, net)
        return
    in_frames, out_frames = frame_counts(net)
    out_frames = config.frames or out_frames
    clips = data.create_dataset(
        config.data, Path(config.data_dir), "test", num_clips=config.num_clips, num_frames=in_frames + out_frames,
        **config.data_args,
    )  # fmt: skip
    # Before the clips are read: it may fail.
    lpips = load_lpips(None if config.lpips == "download" else config.lpips) if config.lpips else None
    with clear_failures("a smaller --batch-size takes less"), join_world(choose_device(config.device)) as world:
        lpips = lpips and lpips.to(world.device)
        timed = evaluation.TimedForecast(evaluation.forecast(move(net, world.device)), world.device)
        forecasts: dict[str, evaluation.Forecast] = {"model": timed, **evaluation.TRIVIAL_FORECASTS}
        table = evaluation.evaluate(
            forecasts, clips, in_frames, out_frames, num_clips=config.num_clips, batch_size=config.batch_size,
            world=world, workers=config.workers, published=config.published, lpips=lpips,
        )  # fmt: skip
        speed = world.sum(torch.tensor(timed.frames_per_second, dtype=torch.float64)).item()
    if not world.is_first:
        return
    click.echo(f"{table['model'].num_clips} test clips of {config.data}, {in_frames} -> {out_frames} frames")
    print_metrics(table, config.data, frame_values=clips[0][0].numel())
    where = f"{world.size} x {world.device.type}" if world.size > 1 else world.device.type
    click.echo(f"the model predicted {speed:,.1f} frames a second on {where}, {config.batch_size} clips at a time")
    if config.per_frame:
        click.echo("\nframe" + "".join(f"{key:>16}" for key in table["model"].per_frame))
        for number, row in enumerate(zip(*table["model"].per_frame.values(), strict=True), start=1):
            click.echo(f"{number:<5}" + "".join(f"{value:>16.4f}" for value in row))
    if folder:
        # A path says something on one machine alone.
        extra = "".join(f" --data-arg {name}={without_folder(value)}" for name, value in config.data_args.items())
        extra += f" --frames {config.frames}" if config.frames else ""
        told = f"--data {config.data} --data-dir DIR{extra} --num-clips {config.num_clips}"
        try:
            click.echo(f"written to {record_metrics(folder, sha256, table, config.data, told)}")
        except OSError as error:
            # What was measured is on the screen, and right.
            click.echo(f"warning: not written beside the weights: {error}", err=True)
