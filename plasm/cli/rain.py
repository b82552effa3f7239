"""What ``plasm predict`` and ``plasm evaluate`` do with radar."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from plasm.devices import choose_device, clear_failures, move
from plasm.distributed import join_world
from plasm.evaluation import EvaluateConfig, forecast
from plasm.models import ModelInterface, frame_counts, load_model
from plasm.prediction import PredictConfig
from plasm.rain import RainScores, evaluate_rain, model_forecast, predict_rain
from plasm.rain.evaluation import baselines, open_clips, write_scores

__all__ = ["evaluate_radar", "predict_radar"]

_PRINTED = (0.1, 1.0, 5.0)
_LEADS = 6
_INSTALL = "optical flow is left out: pip install 'plasm-video[pysteps]'"


def predict_radar(config: PredictConfig) -> None:
    """Forecast from radar files, and say what was written."""
    if config.input is None:
        raise ValueError("--data radar needs --input: a folder of radar files, a file, or a pattern in quotes")
    if config.size is not None or config.runtime != "eager":
        raise ValueError("--data radar takes no --size and no --runtime: composites are forecast as they are")
    with clear_failures("fewer --frames take less"):
        done = predict_rain(
            config.input, model=config.model, weights=config.weights, frames=config.frames, step=config.step,
            out=config.out, device=config.device, trust=config.trust, data_args=config.data_args,
        )  # fmt: skip
    leads, height, width = done.rates.shape
    click.echo(
        f"{leads} frames of {height} x {width} cells, every {done.minutes:g} minutes after "
        f"{done.start:%Y-%m-%d %H:%M}: {', '.join(map(str, done.files))}"
    )
    if done.flow is None:
        click.echo(_INSTALL)


def evaluate_radar(config: EvaluateConfig) -> None:
    """Measure a model beside persistence and optical flow, and write tables and pictures."""
    net = load_model(config.model, config.weights, trust=config.trust)
    if (channels := ModelInterface.of(net).in_chans) not in (None, 1):
        raise ValueError(f"radar has 1 channel, {config.weights or config.model} takes {channels}")
    in_frames, out_frames = frame_counts(net)
    leads = config.frames or out_frames
    clips = open_clips(Path(config.data_dir), in_frames + leads, dict(config.data_args))
    others = baselines()
    with clear_failures("fewer --frames take less"), join_world(choose_device(config.device)) as world:
        model = model_forecast(forecast(move(net, world.device)), in_frames, world.device)
        scores = evaluate_rain(
            {"model": model, **others}, clips, in_frames, leads, num_clips=config.num_clips, world=world
        )
    if not world.is_first:
        return
    count = min(len(clips), config.num_clips)
    files = write_scores(scores, clips.minutes, Path(config.out))
    click.echo(f"{count} clips of radar, {in_frames} -> {leads} frames of {clips.minutes:g} minutes, {clips.km:.3g} km")
    _print(scores, clips.minutes)
    if "optical flow" not in others:
        click.echo(_INSTALL)
    click.echo(f"written to {', '.join(map(str, files))}")


def _print(scores: RainScores, minutes: float) -> None:
    rows = scores.rows(minutes)
    leads = sorted({row["lead_minutes"] for row in rows})
    shown = [
        leads[number * (len(leads) - 1) // max(1, min(_LEADS, len(leads)) - 1)]
        for number in range(min(_LEADS, len(leads)))
    ]
    click.echo(f"{'':<22}{'mm/h':>6}" + "".join(f"{f'{lead:g} min':>9}" for lead in shown))
    for key, title in (("csi", "CSI"), ("bias", "bias")):
        for threshold in _PRINTED:
            for method in scores.methods:
                values = _values(rows, method, threshold, key, shown)
                click.echo(f"{title:<5}{method:<17}{threshold:>6g}" + "".join(f"{value:>9.3f}" for value in values))


def _values(
    rows: Sequence[dict[str, Any]], method: str, threshold: float, key: str, leads: Sequence[float]
) -> list[float]:
    found = {
        row["lead_minutes"]: row[key] for row in rows if row["method"] == method and row["threshold_mm_h"] == threshold
    }
    return [found[lead] for lead in leads]
