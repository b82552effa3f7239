"""Rain by other systems of the zoo, and by other losses: trained alike on the same crops, scored in one run.

    python benchmarks/rain.py train --data-dir DIR --out runs/rain
    python benchmarks/rain.py measure --data-dir DIR --out runs/rain
    python benchmarks/rain.py trials --data-dir DIR --out runs/rain

``train`` does what OUT has not yet, and goes on where it was stopped. ``measure`` scores the systems, and the published
``plasm_radar`` beside them, on the test composites; ``trials`` scores the losses on those that choices are made on.
Both write a CSV a table to ``docs/results``. What decides a result stands here.
"""

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from plasm import training
from plasm.config import read_config
from plasm.devices import move
from plasm.evaluation import forecast
from plasm.files import atomic_write
from plasm.models import Family, PLASMRadar, frame_counts, load_model
from plasm.rain.evaluation import baselines, evaluate_rain, open_clips, write_scores
from plasm.rain.forecasts import Forecast, model_forecast
from plasm.tasks import Losses, Outputs, Prediction, RainPrediction, Task

RESULTS = Path(__file__).parent.parent / "docs" / "results"
CPU = torch.device("cpu")

EVENTS: dict[str, Any] = {
    "fmi/2016*": "train", "mrms/*": {"train": (0, 5000), "val": (5128, 7000)}, "fmi/2017*": "test", "knmi/*": "test",
}  # fmt: skip
TESTS: dict[str, dict[str, Any]] = {
    "knmi": {"events": {"knmi/*": "test"}, "every": 3},
    "fmi": {"events": {"fmi/2017*": "test"}, "every": 3},
}
CHOICE: dict[str, Any] = {"events": {"mrms/*": {"test": (5128, 7000)}}, "stride": 2, "starts": (0,)}
"""One forecast of the columns of MRMS that are for choices: steps of 4 minutes, a million cells six times over."""

COMMON: dict[str, Any] = {
    "data": "radar", "batch_size": 6, "accumulate": 1, "optimizer": "muon", "lr": 0.004, "schedule": "wsd",
    "warmup_epochs": 0, "warmup_steps": 30, "decay_epochs": 1, "weight_decay": 0.0, "clip_grad": 1.0, "ema": 0.0,
    "bf16": True, "compile": False, "rollout": 1, "init": None, "freeze_encoder": None, "device": "cpu",
    "clips_per_epoch": 300, "val_clips": 48, "workers": 0, "opt_args": {}, "layer_decay": None, "seed": 0,
}  # fmt: skip
DATA_ARGS: dict[str, Any] = {"events": EVENTS, "size": 160, "heavy": 4}


@dataclass(frozen=True)
class System:
    """What is trained.

    Attributes:
        model: Constructor.
        epochs: Of 300 crops.
        model_args: Of the constructor.
        task_args: Of its task.
        data_args: Over ``DATA_ARGS``.
    """

    model: str
    epochs: int = 20
    model_args: dict[str, Any] = field(default_factory=dict)
    task_args: dict[str, Any] = field(default_factory=dict)
    data_args: dict[str, Any] = field(default_factory=dict)

    def config(self, data_dir: str, out: str) -> training.TrainConfig:
        """Its configuration."""
        frames = {"in_frames": 6, "out_frames": 12}
        given = {
            "model": self.model, "epochs": self.epochs, "eval_every": self.epochs, "task_args": self.task_args,
            "model_args": {**frames, **self.model_args}, "data_args": {**DATA_ARGS, **self.data_args},
        }  # fmt: skip
        return training.create_config(training.TrainConfig, {**COMMON, **given, "data_dir": data_dir, "out": out})


_STEPS = 20 * COMMON["clips_per_epoch"] // COMMON["batch_size"]
# Scheduled sampling ends after 40 % of the steps, as in the league.
_SAMPLING = {"sampling_stop": round(0.4 * _STEPS)}

SYSTEMS: dict[str, System] = {
    "ConvLSTM": System("convlstm_mmnist_tiny", 20, {"patch_size": 8, "hidden_dims": [32] * 4}, _SAMPLING),
    "SimVP (gSTA)": System(
        "simvp_gsta_mmnist_tiny", 20, {"translator_dim": 256, "translator_depth": 4, "mlp_ratio": 4.0}
    ),
    "PredRNN": System("predrnn_mmnist_tiny", 20, {"patch_size": 8, "hidden_dims": [21] * 4}, _SAMPLING),
}
"""Shapes of the league, of PredRNN the one that lost there, each with its own loss, squared error, weighed 1 + 4 x."""


def _trial(**changes: Any) -> System:
    return System("plasm_radar_trial", epochs=5, **changes)


TRIALS: dict[str, System] = {
    "as published": _trial(),
    "absolute error": _trial(task_args={"form": "absolute"}),
    "squared error": _trial(task_args={"form": "squared"}),
    "with a spectral term": _trial(task_args={"form": "spectral"}),
    "no weight by rate": _trial(data_args={"heavy": 0}),
    "speeds by strides 1 and 2": _trial(data_args={"strides": (1, 2)}),
    "speeds and sizes by zoom": _trial(task_args={"form": "zoomed"}),
    "crops drawn evenly": _trial(data_args={"dry": 1.0}),
}
"""``plasm_radar`` with 1,500 crops."""

_BANDS = 6
_SPECTRUM = 0.1
_ZOOM = 1.5


class SpectralRain(RainPrediction):
    """Its losses, and .1 times the mean of log^2 of forecast over observed power, in octaves of the wavelength."""

    def rain_losses(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Losses:
        """See ``RainPrediction``."""
        said, seen = (octaves(each) for each in (prediction, target))
        ratio = ((said + 1e-4) / (seen + 1e-4)).log().square().mean()
        return {**super().rain_losses(prediction, target, weight), "spectrum": _SPECTRUM * ratio}


class AbsoluteError(RainPrediction):
    """The error of ``RainPrediction`` alone."""

    def rain_losses(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Losses:
        """See ``RainPrediction``."""
        return {"error": super().rain_losses(prediction, target, weight)["error"]}


class ZoomedRain(RainPrediction):
    """As ``RainPrediction``; a training step scales its crops by a factor of up to 1.5, and all speeds with them."""

    def forward(
        self, clips: Tensor, index: Tensor, epoch: int | None, step: int, weight: Tensor | None = None
    ) -> tuple[Losses, Outputs]:
        """See ``RainPrediction``."""
        if self.training:
            factor = _ZOOM ** (2 * torch.rand(()).item() - 1)
            size = [round(factor * side) for side in clips.shape[-2:]]
            if weight is not None:
                nearest = nn.functional.interpolate(weight.flatten(1, 2), size, mode="nearest-exact")
                # What a missing cell has a part in has no weight.
                whole = _resize((weight > 0).to(clips.dtype), size) > 1 - 1e-3
                weight = nearest.unflatten(1, weight.shape[1:3]) * whole
            clips = _resize(clips, size)
        return super().forward(clips, index, epoch, step, weight)


def _resize(frames: Tensor, size: list[int]) -> Tensor:
    resized = nn.functional.interpolate(frames.flatten(1, 2), size, mode="bilinear", antialias=True)
    return resized.unflatten(1, frames.shape[1:3])


def octaves(frames: Tensor) -> Tensor:
    """Power in octaves of the wavelength, summed over all but lead times: (B, T', C, H, W) to (T', octaves)."""
    height, width = frames.shape[-2:]
    # MKL of torch 2.6 takes no frames that share their rows.
    power = torch.fft.rfft2(frames.contiguous(), norm="ortho").abs().square().sum((0, 2))
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    band = (-torch.log2((rows.square() + columns.square()).sqrt().clamp_min(2.0**-_BANDS)) - 1).clamp_min(0).long()
    bands = torch.nn.functional.one_hot(band.to(frames.device).clamp_max(_BANDS - 1), _BANDS).to(power.dtype)
    return torch.einsum("thw,hwb->tb", power, bands)


FORMS: dict[str, Callable[..., Task]] = {
    "counts": RainPrediction, "absolute": AbsoluteError, "squared": Prediction, "spectral": SpectralRain,
    "zoomed": ZoomedRain,
}  # fmt: skip


def rain_loss(model: nn.Module, rollout: int = 1, form: str = "counts") -> Task:
    """A task by the name of its loss: a family has one."""
    return FORMS[form](model, rollout)


FAMILY = Family(title="PLA-SM for radar, by other losses", url="", citation="", module=__name__, task=rain_loss)
default_cfgs = FAMILY.default_cfgs
plasm_radar_trial = FAMILY.register(
    PLASMRadar, "plasm_radar_trial", in_chans=1, img_size=(128, 128), in_frames=6, out_frames=12
)


def folder_of(name: str, out: Path) -> Path:
    """Where the run of a system or a trial lies."""
    return out / "".join(each if each.isalnum() else "_" for each in name.lower())


def finished(name: str, data_dir: str, out: Path) -> bool:
    """Whether the run of a system or a trial has come to its end, when it writes its report.

    Raises:
        click.ClickException: If that was with other settings than those that stand here.
    """
    folder = folder_of(name, out)
    if not (folder / "report.md").is_file():
        return False
    # As files have them, with lists for tuples.
    system, kind = {**SYSTEMS, **TRIALS}[name], training.TrainConfig
    stated = json.loads(json.dumps(asdict(system.config(data_dir, str(folder)))))
    saved = asdict(kind(**read_config(kind, folder / "config.toml")))
    places = ("data_dir", "out", "checkpoint_minutes")
    changed = [f"{key} was {saved[key]!r}" for key in stated if key not in places and stated[key] != saved[key]]
    if changed:
        raise click.ClickException(
            f"{folder} was trained with other settings than {name} has here: {'; '.join(changed)}. Move it away, and "
            "train again"
        )
    return True


def forecasts_of(names: list[str], data_dir: str, out: Path) -> dict[str, Forecast]:
    """The finished runs of these names, as forecasts of rates; the others are said."""
    found = {}
    for name in names:
        if finished(name, data_dir, out):
            net = load_model(None, str(folder_of(name, out)))
            found[name] = model_forecast(forecast(move(net, CPU)), frame_counts(net)[0], CPU)
        else:
            click.echo(f"{name} is left out: {folder_of(name, out)} holds no run that has ended", err=True)
    return found


@click.group()
def main() -> None:
    """See the head of this file."""


_data_dir = click.option("--data-dir", required=True, help="Folder of fmi/, knmi/ and mrms/.")
_out = click.option("--out", required=True, type=Path, help="Folder of the runs.")


@main.command("train")
@_data_dir
@_out
@click.option("--name", "names", multiple=True, type=click.Choice([*SYSTEMS, *TRIALS]), help="All by default.")
def train_all(data_dir: str, out: Path, names: tuple[str, ...]) -> None:
    """Train what OUT has not yet."""
    for name in names or (*SYSTEMS, *TRIALS):
        folder = folder_of(name, out)
        if not finished(name, data_dir, out):
            training.run({**SYSTEMS, **TRIALS}[name].config(data_dir, str(folder)), resume=True)


@main.command()
@_data_dir
@_out
def measure(data_dir: str, out: Path) -> None:
    """Score the finished systems, and the published weights, on the test events."""
    published = load_model("plasm_radar", None)
    methods = {
        "model": model_forecast(forecast(move(published, CPU)), 6, CPU),
        **forecasts_of([*SYSTEMS], data_dir, out),
        **baselines(),
    }
    for event, given in TESTS.items():
        clips = open_clips(Path(data_dir), 18, given)
        scores = evaluate_rain(methods, clips, 6, 12)
        scored = write_scores(scores, clips.minutes, out / event)
        with atomic_write(RESULTS / f"rain_{event}.csv") as beside:
            beside.write_bytes(scored[0].read_bytes())
        click.echo(f"{event}: {len(clips)} clips, pictures in {out / event}")


@main.command()
@_data_dir
@_out
def trials(data_dir: str, out: Path) -> None:
    """Score the finished trials on the columns for choices."""
    clips = open_clips(Path(data_dir), 18, CHOICE)
    methods = {**forecasts_of([*TRIALS], data_dir, out), **baselines()}
    rows = evaluate_rain(methods, clips, 6, 12).rows(clips.minutes)
    kept = [row for row in rows if row["threshold_mm_h"] in (0.1, 1.0, 5.0)]
    columns = ["method", "lead_minutes", "threshold_mm_h", "csi", "bias", "fss_16km"]
    with atomic_write(RESULTS / "rain_trials.csv") as beside, beside.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(columns)
        table.writerows([f"{v:.4f}" if isinstance(v := row[key], float) else v for key in columns] for row in kept)


if __name__ == "__main__":
    main()
