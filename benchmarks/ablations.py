"""The paper's ablation tables, and ours, at a small scale: equal clips, several seeds, the paper's figures beside ours.

    python benchmarks/ablations.py --table VI --clips 4800 --seeds 3 --data-dir DIR --out runs/ablations

A row is phase 1 (where it has one) and phase 2 of that many clips each, but for those that fill no batch at the end of
one of four epochs: of 1,000 clips 960 are seen, of 4,800 all, with batches of 32 4,736. What is measured is the MSE of
the first validation clips at the end. Each finished run is kept in OUT as a line of TABLE_MODEL_CLIPS.csv, an
interrupted one is resumed, so the same command goes on where it stopped. At the end it writes such an .md: mean, range
and seeds of a row.

A row depends on what stands here alone, on no model's recipe: ``resolve`` gives all that decides its result, and
``docs/results/ablations_rows.json`` holds that of every row of every table.
"""

import csv
import hashlib
import json
import statistics
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import click
import pla_forms
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from plasm import training
from plasm.files import atomic_write
from plasm.layers import SparseConv2d, SparseTensor
from plasm.models import arguments_of, family_of
from plasm.runs.config import AnyRunConfig


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: As it is printed.
        paper: The paper's MSE of Moving MNIST, or None where it has no such row.
        phase1: Fields of ``PretrainConfig`` over ``PHASE_1``, or None: no phase 1.
        phase2: Fields of ``TrainConfig`` over ``PHASE_2``.
        model_args: Of the model's constructor.
        model: Another constructor than the table's.
        sampling: The option of the model's task that says after how many steps a recurrent model sees no more true
            frames in training: here, half of the run's.
        scaled: Whether phase 1's convolutions are scaled by the number of active taps.
    """

    name: str
    paper: float | None = None
    phase1: dict[str, Any] | None = None
    phase2: dict[str, Any] = field(default_factory=dict)
    model_args: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    sampling: str | None = None
    scaled: bool = False


BOTH: dict[str, Any] = {
    "data": "mmnist", "batch_size": 16, "schedule": "onecycle", "warmup_epochs": 0, "warmup_steps": 0,
    "decay_epochs": 0, "weight_decay": 0.0, "ema": 0.0, "clip_grad": 1.0, "val_clips": 200, "eval_every": 4,
}  # fmt: skip
PHASE_1: dict[str, Any] = {
    **BOTH, "optimizer": "adam", "lr": 0.01, "mask_ratio": 0.96, "mask_ratio_end": None, "spatial_masking": True,
    "attn_mask_ratio": 0.1, "mask_patch": 1,
}  # fmt: skip
PHASE_2: dict[str, Any] = {**BOTH, "optimizer": "muon", "lr": 0.002, "rollout": 1, "freeze_encoder": None}
"""What the rows of all tables do, unless they say otherwise. By default the encoder is frozen after phase 1."""

# The form of plasm_mmnist_tiny that the tables were made with: without what the paper's model has not.
_TINY = {"translator_dim": 192, "skip": False}
_NONE = {"attention": "none"}
_NO_SM = {"spatial_masking": False}
_ADAM = {"optimizer": "adam"}
_ADAMW = {"optimizer": "adamw", "weight_decay": 0.05}
_MUON = {"optimizer": "muon", "lr": 0.004}
_WSD = {"schedule": "wsd", "warmup_steps": 30, "decay_epochs": 1}
# Other people's models, small: name, constructor, its arguments, the option of its sampling, the paper's MSE without
# phase 1 and with it.
_OTHERS: list[tuple[str, str, dict[str, Any], str | None, float, float]] = [
    ("PhyDNet", "phydnet_mmnist", {"residual_dims": [32, 64]}, "forcing_steps", 24.4, 23.2),
    ("MAU", "mau_mmnist", {"hidden_dims": [32, 32]}, "sampling_stop", 27.6, 25.9),
    ("SimVP", "simvp_mmnist", {"encoder_dim": 16, "translator_dim": 64, "translator_depth": 4}, None, 23.8, 22.3),
]

TABLES: dict[str, list[Row]] = {
    "VI": [
        Row("-", 22.8, None, model_args=_NONE),
        Row("mask", 21.6, _NO_SM, model_args=_NONE),
        Row("mask, SM", 20.1, {}, model_args=_NONE),
        Row("PLA", 21.2, None),
        Row("mask, SM, PLA", 18.4, {}),
        # What no paper prints: an encoder that is random and stays so, with and without PLA.
        Row("random frozen encoder", None, None, {"freeze_encoder": True}, _NONE),
        Row("random frozen encoder, PLA", None, None, {"freeze_encoder": True}),
        Row("mask, SM, PLA, encoder trains on", None, {}, {"freeze_encoder": False}),
        Row("mask that falls to 0, SM, PLA", None, {"mask_ratio_end": 0.0}),
        Row("mask that falls to .5, SM, PLA", None, {"mask_ratio_end": 0.5}),
        Row("mask, SM, PLA, scaled by active taps", None, {}, scaled=True),
    ],
    "VII": [
        row
        for name, model, args, sampling, alone, pretrained in _OTHERS
        for row in (
            Row(name, alone, None, _ADAM, args, model, sampling),
            Row(f"{name}, pretrained", pretrained, {}, _ADAM, args, model, sampling),
            Row(f"{name}, random frozen encoder", None, None, {**_ADAM, "freeze_encoder": True}, args, model, sampling),
        )
    ],
    "VIII": [
        Row(f"r0 = {ratio:.2f}", paper, {"mask_ratio": ratio})
        for ratio, paper in (
            (0.0, 21.2), (0.1, 20.8), (0.3, 20.5), (0.5, 20.2), (0.7, 20.2), (0.9, 19.5), (0.95, 19.1), (0.96, 18.4),
            (0.97, 18.5), (0.98, 20.8), (0.99, 21.1), (1.0, 22.8),
        )
    ],
    # Its row of r = 0 has the figure of Table VI's first one, which had no phase 1. Whether its pixels were masked is
    # not said; here they are not.
    "IX": [
        Row(f"r = {ratio:.2f}", paper, {"mask_ratio": 0.0, "attn_mask_ratio": ratio}, model_args=_NONE)
        for ratio, paper in ((0.0, 22.8), (0.05, 22.2), (0.1, 21.5), (0.15, 23.4))
    ],
    "X": [
        Row("7x7 convolution", 28.3, None, model_args={"block": "conv7x7", **_NONE}),
        Row("7x7 convolution, PLA", 24.6, None, model_args={"block": "conv7x7"}),
        Row("ConvNeXt", 22.8, None, model_args=_NONE),
        Row("ConvNeXt, PLA", 21.2, None),
    ],
    "XI": [
        Row(f"{heads} head(s)", paper, {}, model_args={"num_heads": heads})
        for heads, paper in ((1, 18.6), (2, 18.4), (4, 18.7), (8, 18.6), (16, 18.5))
    ],
    # Does PLA earn its place? Every form with the recipe that learns fastest, from scratch.
    "forms": [
        Row(name, None, None, _MUON, {"skip": True, **args})
        for name, args in (
            ("without PLA", _NONE),
            ("global, cosine score (default)", {"score": "cosine"}),
            ("global, sigmoid", {"score": "sigmoid"}),
        )
    ] + [
        Row(name, None, None, _MUON, {**_TINY, "skip": True}, model)
        for name, model in (
            ("gate: a number a channel", pla_forms.plasm_gate.__name__),
            ("local: a number a channel and place", pla_forms.plasm_local.__name__),
            ("cross: places of high in low", pla_forms.plasm_cross.__name__),
            ("a learned constant a head", pla_forms.plasm_constant_heads.__name__),
            ("as in the authors' code", pla_forms.plasm_authors_attention.__name__),
        )
    ],
    "recipe": [
        Row(name, None, None, fields, {"skip": True, "attention": "none", **args})
        for name, fields, args in (
            ("Adam, .001", {**_ADAM, "lr": 0.001}, {}),
            ("Adam, .002", {**_ADAM, "lr": 0.002}, {}),
            ("Adam, .004", {**_ADAM, "lr": 0.004}, {}),
            ("AdamW, .001, decay .05", {**_ADAMW, "lr": 0.001}, {}),
            ("AdamW, .002, decay .05", {**_ADAMW, "lr": 0.002}, {}),
            ("AdamW, .004, decay .05", {**_ADAMW, "lr": 0.004}, {}),
            ("Muon, .001", {"optimizer": "muon", "lr": 0.001}, {}),
            ("Muon, .002", {"optimizer": "muon", "lr": 0.002}, {}),
            ("Muon, .004", _MUON, {}),
            ("Muon, .008", {"optimizer": "muon", "lr": 0.008}, {}),
            ("AdaMuon, .004", {"optimizer": "adamuon", "lr": 0.004}, {}),
            ("Muon, .004, batch 8", {**_MUON, "batch_size": 8}, {}),
            ("Muon, .004, batch 32", {**_MUON, "batch_size": 32}, {}),
            ("Muon, .004, no skip", _MUON, {"skip": False}),
            ("Muon, .004, average .99", {**_MUON, "ema": 0.99}, {}),
            ("Muon, .004, decay .05", {**_MUON, "weight_decay": 0.05}, {}),
            ("Muon, .004, wsd", {**_MUON, **_WSD}, {}),
            ("Muon, .004, width 256, depth 2", _MUON, {"translator_dim": 256, "translator_depth": 2}),
            ("Muon, .004, width 144, depth 5", _MUON, {"translator_dim": 144, "translator_depth": 5}),
            ("Muon, .004, encoder 32", _MUON, {"encoder_dim": 32}),
        )
    ],
}  # fmt: skip


CLIPS = {table: 4800 if table in ("forms", "recipe") else 1000 for table in TABLES}
"""Of each phase, in the CSVs of ``docs/results``."""

MODEL = "plasm_mmnist_tiny"
"""The model of the rows that name none."""

LIST = Path(__file__).parent.parent / "docs" / "results" / "ablations_rows.json"


def epochs_of(clips: int) -> dict[str, int]:
    """Four passes over that many clips in all."""
    return {"epochs": 4, "clips_per_epoch": clips // 4}


def scale_by_active_taps(layer: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """A sparse convolution as if its missing neighbours were the mean of those that are there (a forward hook).

    What each tap brings is scaled by the taps of a dense convolution at that place, over those that met a visible site.
    """
    if not (isinstance(layer, SparseConv2d) and isinstance(args[0], SparseTensor)):
        return None
    visible = args[0].sites.visible.float()

    def taps(places: Tensor) -> Tensor:
        counts = F.conv2d(places, places.new_ones(1, 1, *layer.kernel_size), stride=layer.stride, padding=layer.padding)
        return output.sites.gather(counts)

    scale = taps(visible.new_ones(visible.shape)) / taps(visible)
    bias = 0.0 if layer.bias is None else layer.bias
    return SparseTensor((output.features - bias) * scale + bias, output.sites)


def resolve(row: Row, clips: int, model: str) -> dict[str, dict[str, Any]]:
    """All that decides a row's result but its seed: configurations by phase, with every argument of the model."""
    length = epochs_of(clips)
    steps = length["epochs"] * (length["clips_per_epoch"] // BOTH["batch_size"])
    constructor = row.model or model
    args = {**(_TINY if constructor == MODEL else {}), **row.model_args}
    shared = {
        **length,
        "model": constructor,
        "model_args": {**(arguments_of(constructor) if family_of(constructor) else {}), **args},
    }
    phases = {}
    if row.phase1 is not None:
        phases["phase1"] = {**PHASE_1, **row.phase1, **shared, "scaled": row.scaled}
    task_args = {row.sampling: steps // 2} if row.sampling else {}
    phases["phase2"] = {**PHASE_2, **row.phase2, **shared, "task_args": task_args}
    # As JSON has it, lists for tuples.
    return dict(json.loads(json.dumps(phases)))


def digest(resolved: dict[str, Any]) -> str:
    """First digits of the sha256 of what ``resolve`` gives.

    Arguments of the model that are None or False are left out: one that comes later changes no digest.
    """
    phases = {
        phase: {**values, "model_args": {k: v for k, v in values["model_args"].items() if v not in (None, False)}}
        for phase, values in resolved.items()
    }
    return hashlib.sha256(json.dumps(phases, sort_keys=True).encode()).hexdigest()[:12]


def config_of(kind: type[AnyRunConfig], values: dict[str, Any], **others: Any) -> AnyRunConfig:
    """The configuration of a phase: what is resolved, seed and folders, and no more.

    Raises:
        ValueError: If the recipe of the model decides something of it.
    """
    told = {name: value for name, value in {**values, **others}.items() if name != "scaled"}
    # None is no value of a configuration file, and the default of an argument that has it.
    told["model_args"] = {name: value for name, value in values["model_args"].items() if value is not None}
    defaults = {f.name: f.default_factory() if callable(f.default_factory) else f.default for f in fields(kind)}
    stated = {**defaults, **told}
    config = training.create_config(kind, stated)
    found = json.loads(json.dumps(asdict(config)))
    if decided := sorted(name for name, value in stated.items() if found[name] != value):
        raise ValueError(f"the recipe of {config.model} decides {', '.join(decided)}: say it in the table")
    return config


def measure(row: Row, resolved: dict[str, dict[str, Any]], seed: int, data_dir: str, folder: Path) -> float:
    """Run what a row says, resuming what is there, and give the validation MSE at the end."""
    places: dict[str, Any] = {"seed": seed, "data_dir": data_dir}
    if "phase1" in resolved:
        first = folder / "phase1"
        if not finished(first):
            config = config_of(training.PretrainConfig, resolved["phase1"], **places, out=str(first))
            with register_module_forward_hook(scale_by_active_taps) if row.scaled else nullcontext():
                training.run(config, resume=True)
        places["init"] = str(first)
    second = folder / "phase2"
    if not finished(second):
        training.run(config_of(training.TrainConfig, resolved["phase2"], **places, out=str(second)), resume=True)
    return float(last_log(second)["val_mse"])


def select(rows: list[Row], wanted: tuple[str, ...]) -> list[Row]:
    """The rows of those names, or where no row has a name, those that start with it; all if none is named.

    Raises:
        click.BadParameter: If there is none.
    """
    if not wanted:
        return rows
    names = [row.name for row in rows]
    if missing := [each for each in wanted if not any(name.startswith(each) for name in names)]:
        raise click.BadParameter(f"no row is called {', '.join(missing)} or begins so; there are {', '.join(names)}")
    return [
        row for row in rows
        if any(row.name == each or (each not in names and row.name.startswith(each)) for each in wanted)
    ]  # fmt: skip


def last_log(run: Path) -> dict[str, Any]:
    """The last line of a run's log; empty where there is none."""
    file = run / "log.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return dict(json.loads(lines[-1])) if lines else {}


def finished(run: Path) -> bool:
    """Whether a run has come to its end: it writes its report then."""
    return (run / "report.md").is_file()


def describe(model: str = MODEL) -> dict[str, dict[str, dict[str, Any]]]:
    """What every row of every table is resolved to, by table and row."""
    return {table: {row.name: resolve(row, CLIPS[table], model) for row in rows} for table, rows in TABLES.items()}


@dataclass(frozen=True)
class Result:
    """A line of a table's CSV: validation MSE of a row, and what it was trained with (``digest``)."""

    row: str
    seed: int
    clips: int
    digest: str
    mse: float
    paper: float | None


def read_results(file: Path) -> list[Result]:
    """What has been measured already."""
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as stream:
        return [
            Result(
                line["row"], int(line["seed"]), int(line["clips"]), line["digest"], float(line["mse"]),
                float(line["paper"]) if line["paper"] else None,
            )
            for line in csv.DictReader(stream)
        ]  # fmt: skip


def write_results(file: Path, rows: list[Row], results: list[Result]) -> None:
    """Write all that has been measured, in the order of the table."""
    order = [row.name for row in rows]
    known = sorted((each for each in results if each.row in order), key=lambda each: (order.index(each.row), each.seed))
    with atomic_write(file) as beside, beside.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [f.name for f in fields(Result)], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**asdict(each), "mse": f"{each.mse:.3f}"} for each in known)


def markdown(rows: list[Row], results: list[Result]) -> Iterator[str]:
    """The table: mean, range and number of seeds of each row that was measured, beside the paper's figure."""
    yield "| row | MSE, mean | lowest to highest | seeds | the paper |"
    yield "|---|---|---|---|---|"
    for row in rows:
        found = [each.mse for each in results if each.row == row.name]
        if found:
            paper = "" if row.paper is None else f"{row.paper}"
            yield (
                f"| {row.name} | {statistics.mean(found):.1f} | {min(found):.1f} to {max(found):.1f} | {len(found)} | "
                f"{paper} |"
            )


@click.command()
@click.option("--table", type=click.Choice(list(TABLES)), required=True, help="Which table.")
@click.option(
    "--row", "wanted", multiple=True, help="A row of it, by its name or its start; all by default. May be repeated."
)
@click.option("--clips", type=int, help="Of each phase; by default 4,800 for forms and recipe, 1,000 for the others.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--first-seed", default=0, show_default=True)
@click.option("--model", default=MODEL, show_default=True)
@click.option("--data-dir", required=True, help="Folder of the digits' files.")
@click.option("--out", required=True, type=Path, help="Folder of runs and results.")
def main(
    table: str,
    wanted: tuple[str, ...],
    clips: int | None,
    seeds: int,
    first_seed: int,
    model: str,
    data_dir: str,
    out: Path,
) -> None:
    """Run the rows of TABLE that OUT has not yet, and print the table."""
    rows, clips = select(TABLES[table], wanted), clips or CLIPS[table]
    if model != MODEL and (own := [row.name for row in rows if row.model]):
        raise click.UsageError(f"--model has no say in {', '.join(own)}, which name their own small models")
    out.mkdir(parents=True, exist_ok=True)
    stem = f"{table}_{'small' if table == 'VII' else model}_{clips}"
    file = out / f"{stem}.csv"
    for seed in range(first_seed, first_seed + seeds):
        for row in rows:
            resolved = resolve(row, clips, model)
            key = digest(resolved)
            if not any((each.row, each.seed, each.digest) == (row.name, seed, key) for each in read_results(file)):
                mse = measure(row, resolved, seed, data_dir, out / stem / f"{key}-{seed}")
                # Read again: another process may have measured other rows in the meantime.
                others = [each for each in read_results(file) if (each.row, each.seed) != (row.name, seed)]
                write_results(file, TABLES[table], [*others, Result(row.name, seed, clips, key, mse, row.paper)])
    text = "\n".join(markdown(TABLES[table], read_results(file)))
    (out / f"{stem}.md").write_text(text + "\n", encoding="utf-8")
    click.echo(f"Validation MSE of {'small models' if table == 'VII' else model} after {clips:,} clips\n\n{text}")


if __name__ == "__main__":
    main()
