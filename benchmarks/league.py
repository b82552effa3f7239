"""The league: one small model of each system, at equal cost, trained on the same clips and measured alike.

    python benchmarks/league.py train --data-dir DIR --out runs/league
    python benchmarks/league.py measure --data-dir DIR --out runs/league
    python benchmarks/league.py speed
    python benchmarks/league.py picture

Every model costs about 1.05 G MACs a clip (10 -> 10 frames of 64 x 64) and has at most 4 M parameters. A
system is trained three times over: two shapes with the same recipe at 2,400 clips; the better one with three more
recipes (Adam and Muon, two rates each); the best of these on 48,000 clips, from scratch; of two rates of its optimizer
the lower, unless the higher is better by more than ``MARGIN``. If the error of its validation clips ends above its
lowest by more than ``MARGIN``, or is not finite, it is trained again with a quarter of the rate. Batches, clips, their
order, precision, clipping and schedule are the same for all, and stand in ``COMMON``.

A row of the CSV is a finished training; the same command goes on where it stopped. ``measure`` fills in what the
finished models of 48,000 clips do on the fixed 10,000 test clips, and puts their weights into the package; ``speed``
what they cost, in turn in one run; ``picture`` draws one against the other.
"""

import csv
import hashlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import click
import timm
import torch

from plasm import training, weights
from plasm.benchmark import peak_memory
from plasm.cpu import speed_up
from plasm.data import create_dataset
from plasm.devices import move
from plasm.evaluation import evaluate, forecast
from plasm.files import atomic_write
from plasm.models import create_task, load_model, summarize
from plasm.tasks import Task, total_loss

CPU = torch.device("cpu")
ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results" / "league.csv"
PICTURE = ROOT / "docs" / "images" / "league.png"

MACS, TOLERANCE, MOST_PARAMETERS = 1.05e9, 0.15, 4_000_000

COMMON: dict[str, Any] = {
    "data": "mmnist", "batch_size": 8, "accumulate": 1, "schedule": "wsd", "warmup_epochs": 0, "weight_decay": 0.0,
    "clip_grad": 1.0, "ema": 0.0, "bf16": True, "compile": False, "rollout": 1, "init": None, "freeze_encoder": None,
    "device": "cpu", "val_clips": 500, "workers": 0, "data_args": {}, "opt_args": {}, "layer_decay": None,
}  # fmt: skip
"""What all trainings share."""

LENGTHS: dict[str, dict[str, int]] = {
    "trial": {"epochs": 4, "clips_per_epoch": 600, "warmup_steps": 30, "decay_epochs": 1, "eval_every": 4},
    "league": {"epochs": 10, "clips_per_epoch": 4800, "warmup_steps": 100, "decay_epochs": 2, "eval_every": 1},
}

TRIALS = ("shape", "recipe")
"""The stages that are short."""

RECIPES: list[tuple[str, float]] = [("muon", 0.004), ("muon", 0.01), ("adam", 0.001), ("adam", 0.003)]
"""Optimizer and peak rate; the shapes are compared with the first."""

MARGIN = 0.02
"""By how much of its error a higher rate has to be better: 300 steps do not show what it does to 6,000."""

SLOWER = 4
"""By what the rate is divided of a system that did not bear it."""

NOTE = (
    "One of the league (docs/league.md): 48,000 clips, the same recipe search and cost as every system there; far from "
    "what the paper's size and training give."
)
NOTES = {
    "plasm_mmnist_tiny": "One of the league (docs/league.md): 48,000 clips, where the default, mmnist_v7, has seen "
    "1,597,696; no phase 1, no Spatial Masking, no frozen encoder, a skip that the paper's Fig. 1 lacks, a score of "
    "PLA of our own, Muon.",
    "e3dlstm_mmnist_tiny": "One of the league (docs/league.md): 48,000 clips, the same cost as every system there, and "
    "a quarter of the rate that the same recipe search chose, which it did not bear; far from what the paper's size "
    "and training give.",
}
"""What the rows of published weights say of them, in place of ``NOTE``."""
OVERFLOW = (
    " For float32 and bfloat16: running variances of up to {:.0e} are kept in float32, and its features overflow in "
    "float16."
)
"""What they say beside, of weights that float16 does not hold."""

SAMPLING = 0.4
"""Share of the steps after which a training step shows no later frame: 50,000 of 125,000 in OpenSTL."""


@dataclass(frozen=True)
class System:
    """A system of the league.

    Attributes:
        shapes: Two shapes, arguments of the constructor; what differs between them and nothing else.
        sampling: The option of its task that says after how many steps training shows no later frame, if there is one.
    """

    shapes: tuple[dict[str, Any], dict[str, Any]]
    sampling: str | None = None


def _patches(small: int, large: int, layers: int = 4) -> System:
    """Layers on patches of 4, or of 8, with as many channels as the budget allows."""
    narrow, wide = ({"patch_size": p, "hidden_dims": [dim] * layers} for p, dim in ((4, small), (8, large)))
    return System((narrow, wide), "sampling_stop")


SYSTEMS: dict[str, System] = {
    "plasm_mmnist_tiny": System((
        {"translator_dim": 256, "translator_depth": 3}, {"translator_dim": 192, "translator_depth": 5},
    )),
    "simvp_gsta_mmnist_tiny": System((
        {"translator_dim": 256, "translator_depth": 4, "mlp_ratio": 4.0},
        {"translator_dim": 128, "translator_depth": 8, "mlp_ratio": 8.0},
    )),
    "convlstm_mmnist_tiny": _patches(16, 32),
    "predrnn_mmnist_tiny": _patches(11, 21),
    "simvp_mmnist_tiny": System((
        {"translator_dim": 160, "translator_depth": 4}, {"translator_dim": 128, "translator_depth": 6},
    )),
    "tau_mmnist_tiny": System((
        {"translator_dim": 256, "translator_depth": 4, "mlp_ratio": 4.0},
        {"translator_dim": 128, "translator_depth": 8, "mlp_ratio": 8.0},
    )),
    "predformer_mmnist_tiny": System((
        {"dim": 128, "depth": 6, "order": "TST"}, {"dim": 160, "depth": 4, "order": "TSST"},
    )),
    "predrnnpp_mmnist_tiny": _patches(10, 18),
    "mim_mmnist_tiny": System((
        {"patch_size": 4, "hidden_dims": [14, 14]}, {"patch_size": 8, "hidden_dims": [18, 18, 18, 18]},
    ), "sampling_stop"),
    "phydnet_mmnist_tiny": System(({"residual_dims": [32]}, {"residual_dims": [12, 32]}), "forcing_steps"),
    "mau_mmnist_tiny": System((
        {"reduction": 4, "hidden_dims": [16, 16, 16, 16]}, {"reduction": 8, "hidden_dims": [28, 28, 28, 28]},
    ), "sampling_stop"),
    "stam_mmnist_tiny": _patches(9, 17),
    "crevnet_mmnist_tiny": System((
        {"depths": [1, 1, 1], "num_modules": 4, "window": 1}, {"depths": [1, 1], "num_modules": 2, "window": 3},
    ), "sampling_stop"),
    "e3dlstm_mmnist_tiny": System((
        {"patch_size": 8, "hidden_dims": [16, 16]}, {"patch_size": 8, "hidden_dims": [11, 11, 11, 11]},
    ), "sampling_stop"),
}  # fmt: skip
"""In the order in which they are trained."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A finished training: a line of the CSV.

    Attributes:
        model: Constructor.
        stage: "shape", "recipe", "league", or "lost": of a rate that was not borne, or of a recipe that an earlier rule
            chose, 48,000 clips or as many as it had when the rule was changed.
        shape: Arguments of the constructor, as JSON.
        optimizer: Of timm's.
        lr: Peak rate.
        clips: Training clips; of a loss that was not finite those of the epochs before.
        seed: Of initialisation and clips.
        digest: First digits of the sha256 of all that decides the result; see ``Plan.digest``.
        val_mse: On the 500 validation clips at the end; NaN if the loss was not finite.
        hours: Of training, on the machine as it was (other work beside it).
        parameters: Of the model.
        macs: Multiply-adds of a clip.
        metrics: On the 10,000 test clips, as JSON: means, and the MSE of each frame; empty until measured.
        forward: Clips a second of a forecast, beside PLA-SM's in the same run; 0 until measured.
        training: Clips a second of a training step, likewise.
        memory: MiB that a training step adds at its peak.
        curve: MSE of the validation clips after each epoch of a final, as JSON.
    """

    model: str
    stage: str
    shape: str
    optimizer: str
    lr: float
    clips: int
    seed: int
    digest: str
    val_mse: float
    hours: float
    parameters: int
    macs: float
    metrics: str = ""
    forward: float = 0.0
    training: float = 0.0
    memory: float = 0.0
    curve: str = ""


@dataclass(frozen=True)
class Plan:
    """A training to be done."""

    model: str
    stage: str
    shape: dict[str, Any]
    optimizer: str
    lr: float
    seed: int = 0

    def values(self) -> dict[str, Any]:
        """What decides its result: every field of the configuration but folders and how often it is saved.

        Arguments of the constructor that a shape does not name are its defaults, of this version.
        """
        length = LENGTHS["trial" if self.stage in TRIALS else "league"]
        steps, sampling = length["epochs"] * length["clips_per_epoch"], SYSTEMS[self.model].sampling
        given = {
            "model": self.model, "optimizer": self.optimizer, "lr": self.lr, "seed": self.seed,
            "model_args": dict(self.shape),
            "task_args": {sampling: round(SAMPLING * steps // COMMON["batch_size"])} if sampling else {},
        }  # fmt: skip
        return {**COMMON, **length, **given}

    def config(self, data_dir: str, out: str) -> training.TrainConfig:
        """Its configuration."""
        return training.create_config(training.TrainConfig, {**self.values(), "data_dir": data_dir, "out": out})

    def digest(self) -> str:
        """Of its values, but those that are an option's own default: options that come later change no digest."""
        defaults, values = {f.name: f.default for f in fields(training.TrainConfig)}, self.values()
        # Options of tasks were arguments of models when the first rows were trained.
        values["model_args"] = {**values["model_args"], **values.pop("task_args")}
        told = {name: value for name, value in values.items() if value != defaults[name] and value != {}}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]

    def folder(self, out: Path) -> Path:
        """Where its run lies."""
        return out / self.model / f"{self.stage}-{self.digest()}"


def read(file: Path = RESULTS) -> list[Row]:
    """The finished rows."""
    if not file.is_file():
        return []
    kinds: dict[Any, Callable[[str], Any]] = {int: int, float: float, str: str}
    columns = {f.name: kinds[f.type] for f in fields(Row)}
    with file.open(encoding="utf-8", newline="") as stream:
        return [Row(**{key: columns[key](value) for key, value in line.items()}) for line in csv.DictReader(stream)]


def write(rows: list[Row], file: Path = RESULTS) -> None:
    """Write all rows, by system and stage."""
    order = {name: number for number, name in enumerate(SYSTEMS)}
    stages = ("shape", "recipe", "lost", "league")
    rows = sorted(rows, key=lambda row: (order[row.model], stages.index(row.stage), row.seed))
    with atomic_write(file) as beside, beside.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [f.name for f in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def with_row(rows: list[Row], row: Row) -> list[Row]:
    """Rows with one more; of a final, those of the same model with another recipe are lost from now on."""
    # One that diverged puts no other in the shade.
    takes_over = row.stage == "league" and not math.isnan(row.val_mse)
    recipe = (row.shape, row.optimizer, row.lr)

    def is_lost(r: Row) -> bool:
        same_place = (r.model, r.stage) == (row.model, "league")
        return takes_over and same_place and (r.shape, r.optimizer, r.lr) != recipe

    def lose(r: Row) -> Row:
        # Speeds are of the rows that count, in one run.
        return replace(r, stage="lost", forward=0.0, training=0.0, memory=0.0)

    return [*(lose(r) if is_lost(r) else r for r in rows), row]


def unstable(row: Row) -> bool:
    """Whether a final did not bear its rate: its error ends above its lowest by more than MARGIN, or is not finite."""
    return math.isnan(row.val_mse) or row.val_mse > (1 + MARGIN) * min(json.loads(row.curve))


def next_plan(model: str, rows: list[Row], seeds: int = 1) -> Plan | None:
    """What a system is to be trained with next, by what is known of it; None at the end.

    Without seeds, the end is that of the trials.
    The order of the stages is that of the head of this file: a stage begins when the one before it has all its rows.
    """
    known = {row.digest: row for row in rows if row.model == model}

    def error(plan: Plan) -> float:
        value = known[plan.digest()].val_mse
        return math.inf if math.isnan(value) else value

    shapes = [Plan(model, "shape", shape, *RECIPES[0]) for shape in SYSTEMS[model].shapes]
    if missing := [plan for plan in shapes if plan.digest() not in known]:
        return missing[0]
    shape = min(shapes, key=error)
    recipes = [Plan(model, "recipe", shape.shape, *recipe) for recipe in RECIPES[1:]]
    if missing := [plan for plan in recipes if plan.digest() not in known]:
        return missing[0]

    best = min([shape, *recipes], key=error)
    rates = [plan for plan in (shape, *recipes) if plan.optimizer == best.optimizer]
    chosen = min((plan for plan in rates if error(plan) <= error(best) * (1 + MARGIN)), key=lambda plan: plan.lr)
    final = replace(chosen, stage="league")
    while (row := known.get(final.digest())) and unstable(row):
        final = replace(final, lr=final.lr / SLOWER)
    finals = [replace(final, seed=seed) for seed in range(seeds)]
    return next((plan for plan in finals if plan.digest() not in known), None)


def train(plan: Plan, data_dir: str, out: Path) -> Row:
    """Do a training, or what is left of it."""
    folder = plan.folder(out)
    config = plan.config(data_dir, str(folder))
    model = timm.create_model(plan.model, **config.model_args)
    summary = summarize(plan.model, **plan.shape)
    if abs(summary.macs / MACS - 1) > TOLERANCE or summary.parameters > MOST_PARAMETERS:
        raise ValueError(
            f"{plan.model} {plan.shape} is outside the league: {summary.macs / 1e9:.3f} G MACs, "
            f"{summary.parameters:,} parameters"
        )
    diverged = False
    try:
        if not (folder / "report.md").is_file():
            training.run(config, resume=True)
    except FloatingPointError as error:
        # A rate that a system does not bear is a result.
        click.echo(f"{plan.model}, {plan.optimizer} {plan.lr}: {error}", err=True)
        diverged = True
    file = folder / "log.jsonl"
    log = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    val_mse = math.nan if diverged else float(log[-1]["val_mse"])
    return Row(
        model=plan.model, stage=plan.stage, shape=json.dumps(plan.shape), optimizer=plan.optimizer, lr=plan.lr,
        clips=len(log) * config.clips_per_epoch, seed=plan.seed, digest=plan.digest(), val_mse=round(val_mse, 3),
        hours=round(sum(config.clips_per_epoch / each["clips_per_second"] for each in log) / 3600, 3),
        parameters=sum(p.numel() for p in model.parameters()), macs=float(summary.macs),
        curve="" if plan.stage in TRIALS else json.dumps([round(float(each["val_mse"]), 3) for each in log]),
    )  # fmt: skip


def note_of(plan: Plan, out: Path) -> str:
    """What the row of a finished model's weights says of them."""
    kept = weights.half_precision(weights.load_tensors(plan.folder(out) / "model.safetensors"))
    largest = max((float(each.abs().max()) for each in kept.values() if each.dtype == torch.float32), default=0.0)
    return NOTES.get(plan.model, NOTE) + (OVERFLOW.format(largest) if largest else "")


def publish(row: Row, plan: Plan, data_dir: Path, out: Path) -> Row:
    """Put the weights of a finished model into the package, and what they do on the fixed test clips into its row."""
    with tempfile.TemporaryDirectory() as folder:
        scores = Path(folder) / "scores.json"
        command = [
            sys.executable, str(ROOT / "tools" / "embed_weights.py"), str(plan.folder(out)), "league", "--no-default",
            "--data-dir", str(data_dir), "--note", note_of(plan, out), "--scores", str(scores),
        ]  # fmt: skip
        subprocess.run(command, check=True)
        return with_metrics(row, json.loads(scores.read_text(encoding="utf-8")))


def measure(row: Row, plan: Plan, data_dir: Path, out: Path) -> Row:
    """What a finished model of another seed does there, in half precision too."""
    model = load_model(plan.model, str(plan.folder(out))).eval()
    model.load_state_dict(weights.half_precision(model.state_dict()))
    clips = create_dataset("mmnist", data_dir, "test", num_frames=20)
    scores = evaluate({"model": forecast(model)}, clips, 10, 10)["model"]
    return with_metrics(row, {**scores.means, "mse_per_frame": scores.per_frame["mse"]})


def with_metrics(row: Row, scores: dict[str, Any]) -> Row:
    """A row with scores, rounded."""
    per_frame = [round(value, 3) for value in scores.pop("mse_per_frame")]
    metrics = {name: round(value, 4) for name, value in scores.items()}
    return replace(row, metrics=json.dumps({**metrics, "mse_per_frame": per_frame}))


def speeds(plans: list[Plan], rounds: int, batch: int = 8) -> Iterator[tuple[Plan, list[float], list[float], float]]:
    """Clips a second of forecasts and training steps, the models in turn in each round.

    Yields:
        Plan, clips a second forward and in training in each round, and MiB that a training step adds at its peak.
    """
    clips = torch.rand(batch, 20, 1, 64, 64)
    index = torch.arange(batch)
    tasks = [move(create_task(p.model, speed_up(timm.create_model(p.model, **p.shape))), CPU) for p in plans]

    def step(task: Task) -> None:
        task.train()
        with torch.autocast("cpu", torch.bfloat16):
            losses, _ = task(clips, index, 0, 1 << 30)
        total_loss(losses).float().backward()

    def forward(task: Task) -> None:
        with torch.no_grad():
            task.model.eval()(clips[:, :10])

    rates: dict[tuple[int, str], list[float]] = {}
    for number in range(rounds + 1):
        for place, task in enumerate(tasks):
            for name, run in (("forward", forward), ("training", step)):
                started = time.perf_counter()
                run(task)
                if number:  # the first round warms up
                    rates.setdefault((place, name), []).append(batch / (time.perf_counter() - started))
    for place, plan in enumerate(plans):
        memory = peak_memory(lambda task=tasks[place]: step(task), CPU) / 2**20  # type: ignore[misc]
        yield plan, rates[place, "forward"], rates[place, "training"], float(round(memory))


@click.group()
def main() -> None:
    """Train and measure the league."""


_DATA = click.option("--data-dir", required=True, help="Folder of the digits' files.")
_OUT = click.option("--out", required=True, type=Path, help="Folder of the runs.")
_MODELS = click.option("--model", "models", multiple=True, type=click.Choice(list(SYSTEMS)), help="All by default.")


@main.command("train")
@_DATA
@_OUT
@_MODELS
@click.option("--seeds", default=1, show_default=True, help="Of the 48,000 clips.")
def train_all(data_dir: str, out: Path, models: tuple[str, ...], seeds: int) -> None:
    """Train what the CSV has not yet: the trials of all systems, then their 48,000 clips."""
    for count in (0, seeds):
        for model in models or SYSTEMS:
            while plan := next_plan(model, read(), count):
                click.echo(f"{plan.model}: {plan.stage}, {plan.shape}, {plan.optimizer} {plan.lr}")
                row = train(plan, data_dir, out)
                write(with_row(read(), row))
                click.echo(f"{plan.model}: {plan.stage}, MSE {row.val_mse} of the validation clips")


def finished(rows: list[Row]) -> list[tuple[Row, Plan]]:
    """The rows of 48,000 clips, and what was planned there."""
    return [
        (row, Plan(row.model, row.stage, json.loads(row.shape), row.optimizer, row.lr, row.seed))
        for row in rows if row.stage == "league"
    ]  # fmt: skip


@main.command("measure")
@_DATA
@_OUT
def measure_all(data_dir: str, out: Path) -> None:
    """Measure the finished models on the 10,000 test clips; the weights of the first seed go into the package."""
    for row, plan in finished(read()):
        if row.metrics:
            continue
        if math.isnan(row.val_mse) or (unstable(row) and row.seed == 0):
            click.echo(f"{row.model}, seed {row.seed}: its rate was not borne, and its weights are not kept", err=True)
            continue
        if not (plan.folder(out) / "model.safetensors").is_file():
            click.echo(f"{row.model}, seed {row.seed}: {plan.folder(out)} has no weights", err=True)
            continue
        done = (measure if plan.seed else publish)(row, plan, Path(data_dir), out)
        write([done if each.digest == row.digest else each for each in read()])
        click.echo(f"{row.model}: {done.metrics}")


@main.command("speed")
@click.option("--rounds", default=9, show_default=True)
def speed_all(rounds: int) -> None:
    """Measure what the finished models cost on one thread, in turn, by the median; nothing else may run."""
    torch.set_num_threads(1)
    click.echo(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}; in brackets the range")
    plans = [plan for _, plan in finished(read()) if plan.seed == 0]
    for plan, *rates, memory in speeds(plans, rounds):
        forward, step = (round(statistics.median(each), 1) for each in rates)
        rows = [
            replace(row, forward=forward, training=step, memory=memory) if row.digest == plan.digest() else row
            for row in read()
        ]
        write(rows)
        told = [f"{statistics.median(each):.1f} ({min(each):.1f}-{max(each):.1f})" for each in rates]
        click.echo(f"{plan.model}: {told[0]} clips/s forward, {told[1]} in training, {memory} MiB")


@main.command("picture")
@click.option("--out", default=PICTURE, show_default=False, type=Path, help="docs/images/league.png by default.")
def picture(out: Path) -> None:
    """Draw the error of the measured models against the time that a forecast takes, and that of each frame."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    cost, frames = figure.subplots(1, 2)
    measured = [(row, json.loads(row.metrics)) for row, _ in finished(read()) if row.metrics and row.seed == 0]
    for row, scores in sorted(measured, key=lambda pair: pair[1]["mse"]):
        # A system keeps its colour when others join.
        colour = matplotlib.colormaps["tab20"](list(SYSTEMS).index(row.model))
        errors = scores["mse_per_frame"]
        name = row.model.removesuffix("_mmnist_tiny")
        frames.plot(range(1, len(errors) + 1), errors, color=colour, label=f"{name}, {scores['mse']:.1f}")
        if row.forward:
            # Small ones lie on large ones.
            cost.scatter(
                1000 / row.forward, scores["mse"], row.parameters / 1.5e4, color=colour, edgecolor="black",
                zorder=3 - row.parameters / MOST_PARAMETERS,
            )  # fmt: skip
    cost.set(xlabel="milliseconds a forecast, of batches of 8, one thread", ylabel="MSE, 10,000 test clips")
    cost.set_title("After 48,000 clips, 1.05 G MACs; area: parameters", fontsize="medium")
    frames.set(xlabel="frame of the forecast", ylabel="MSE")
    frames.set_title("Error of each frame", fontsize="medium")
    for axes in (cost, frames):
        axes.margins(x=0.1, y=0.1)
        axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", frameon=False)
    with atomic_write(out) as beside:
        figure.savefig(beside, format="png", dpi=120)


if __name__ == "__main__":
    main()
