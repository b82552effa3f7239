"""``plasm predict`` and ``plasm evaluate`` of radar."""

import click

from plasm import rain
from plasm.devices import clear_failures
from plasm.evaluation import EvaluateConfig
from plasm.prediction import PredictConfig, named_models

_INSTALL = "optical flow is left out: pip install 'plasm-video[pysteps]'"


def predict_radar(config: PredictConfig) -> None:
    """Forecast from radar files, and say what was written."""
    if config.input is None:
        raise ValueError("--data radar needs --input: a folder of radar files, a file, or a pattern in quotes")
    if config.size is not None or config.runtime != "eager":
        raise ValueError("--data radar takes no --size and no --runtime: composites are forecast as they are")
    names = named_models(config.model, radar=True)
    if len(names) > 1:
        raise ValueError(f"--data radar forecasts by one model, not by {', '.join(names)}")
    with clear_failures("fewer --frames take less"):
        done = rain.predict_rain(
            config.input, model=names[0] if names else None, weights=config.weights, frames=config.frames,
            step=config.step, out=config.out, device=config.device, trust=config.trust, data_args=config.data_args,
        )  # fmt: skip
    leads, height, width = done.rates.shape
    click.echo(
        f"{leads} frames of {height} x {width} cells, every {done.minutes:g} minutes after "
        f"{done.start:%Y-%m-%d %H:%M}: {', '.join(map(str, done.files))}"
    )
    if done.flow is None:
        click.echo(_INSTALL)


def evaluate_radar(config: EvaluateConfig) -> None:
    """Measure a model beside persistence and optical flow, and say what was measured and written."""
    done = rain.run(config)
    if done is None:
        # The first process prints for all.
        return
    click.echo(
        f"{done.num_clips} clips of radar, {done.in_frames} -> {done.leads} frames of {done.minutes:g} minutes, "
        f"{done.km:.3g} km"
    )
    click.echo(rain.scores_table(done.scores, done.minutes))
    if "optical flow" not in done.scores.methods:
        click.echo(_INSTALL)
    click.echo(f"written to {', '.join(map(str, done.files))}")
