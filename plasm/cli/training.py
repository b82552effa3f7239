"""Commands that train and measure."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from plasm import evaluation, training

from .options import GroupedCommand, given, options
from .rain import evaluate_radar

# How a run is made, where the options above say what it is.
_RUN_OPTIONS: dict[str, dict[str, Any]] = {
    "--config": {
        "type": click.Path(path_type=Path),
        "help": "TOML file with a key for each of these options (`model_args` and the like are tables), such as "
        "RUN/config.toml; options of the command line override it.",
    },
    "--resume": {
        "is_flag": True,
        "help": "Go on from the last checkpoint in --out, as if never stopped; from the start if there is none.",
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
    training.run(training.create_config(kind, given(arguments), file), **how)


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
    config = evaluation.EvaluateConfig.create(given(arguments))
    if config.data == "radar":
        evaluate_radar(config)
        return
    done = evaluation.run(config)
    if done is None:
        # The first process prints for all.
        return
    own = done.metrics["model"]
    click.echo(f"{own.num_clips} test clips of {config.data}, {done.in_frames} -> {done.out_frames} frames")
    click.echo(evaluation.metrics_table(done.metrics, config.data, done.frame_values))
    click.echo(
        f"the model predicted {done.frames_per_second:,.1f} frames a second on {done.machine}, {config.batch_size} "
        "clips at a time"
    )
    if config.per_frame:
        click.echo("\n" + evaluation.frames_table(own, config.data, done.frame_values))
    if done.file:
        click.echo(f"written to {done.file}")
