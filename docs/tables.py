"""Tables of the documentation, each from the data that the code has or the commands wrote.

``<!-- table: NAME ARGUMENT -->`` in a page stands for the table; ``docs/hooks.py`` puts it in.
"""

import csv
import inspect
import json
import math
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import timm

import plasm
from plasm import benchmark as measuring
from plasm import layers as plasm_layers
from plasm import weights
from plasm.benchmark import Measurement
from plasm.models import ModelSummary, recipe, summarize
from plasm.runs import TrainConfig, create_config

RESULTS = Path(__file__).parent / "results"
MARK = re.compile(r"^<!-- table: (?P<name>\w+) ?(?P<argument>[\w.-]*) -->$", re.MULTILINE)


def markdown(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def first_line(thing: object) -> str:
    """The first sentence of a docstring, for a cell; nothing for what has none of its own."""
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return ""
    text = (inspect.getdoc(thing) or "").partition("\n\n")[0]
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


@cache
def families() -> dict[str, list[str]]:
    """Names of the models of each family: that is, of each file of ``plasm/models``."""
    found: dict[str, list[str]] = {}
    for name in plasm.list_models():
        module = timm.models.model_entrypoint(name).__module__
        found.setdefault(module.rpartition(".")[2], []).append(name)
    return dict(sorted(found.items(), key=lambda item: (item[0] != "plasm", item[0])))


def module_of(family: str) -> Any:
    """The module of a family."""
    return sys.modules[f"plasm.models.{family}"]


def title_of(family: str) -> str:
    """What a family is called: the first line of its file, up to the colon."""
    return (module_of(family).__doc__ or family).strip().partition("\n")[0].partition(":")[0].rstrip(".")


def _shape(sizes: Sequence[int]) -> str:
    """Sizes that stay on one line."""
    return "\N{NO-BREAK SPACE}x\N{NO-BREAK SPACE}".join(map(str, sizes))


def _rows(summaries: Iterable[ModelSummary]) -> list[tuple[str, ...]]:
    return [
        (
            f"`{row.name}`",
            f"{row.parameters / 1e6:.2f} M",
            f"{row.macs / 1e9:.2f} G",
            _shape(row.input_shape),
            _shape(row.output_shape),
            ", ".join(f"`{tag}`" for tag in row.tags) or "-",
        )
        for row in summaries
    ]


def models(family: str = "") -> str:
    """Models of a family, or of all: what ``plasm list`` prints."""
    names = [name for key, group in families().items() for name in group if family in ("", key)]
    titles = ("model", "parameters", "MACs", "input: T x C x H x W", "output", "weights")
    return markdown(titles, _rows(map(summary, names)))


@cache
def summary(name: str) -> ModelSummary:
    """Size and cost of a model."""
    return summarize(name)


def all_models(_: str = "") -> str:
    """Every model: size, weights, what is published of it on Moving MNIST, and what was measured here."""
    measured = {
        name: f"{row.metrics['mse']:.1f} ({row.tag}, {row.clips:,})" for name, row in measuring.measured_here().items()
    }
    lines = []
    for family, names in families().items():
        for name in names:
            size = summary(name)
            errors = {row["epochs"]: row["mse"] for row in _published() if row["model"] == name}
            lines.append((
                f"[`{name}`]({family}.md)", f"{size.parameters / 1e6:.1f}", f"{size.macs / 1e9:.1f}",
                _shape(size.input_shape), size.output_shape[0],
                ", ".join(f"`{tag}`" for tag in size.tags) or "-", *(errors.get(e, "-") for e in ("200", "2000")),
                measured.get(name, "-"),
            ))  # fmt: skip
    titles = (
        "model", "parameters (M)", "MACs (G)", "input: T x C x H x W", "T'", "weights",
        "published MSE, 200 epochs", "2,000 epochs", "measured here (weights, clips)",
    )  # fmt: skip
    return markdown(titles, lines)


def family_index(where: str = "") -> str:
    """The families: how many models, how large, and whether there are weights; ``where`` is "here" in their folder."""
    link = "" if where == "here" else "models/"
    rows = []
    for family, names in families().items():
        sizes = [summary(name).parameters / 1e6 for name in names]
        tags = sum(len(weights.tags(name)) for name in names)
        span = f"{min(sizes):.1f}" if len(sizes) == 1 else f"{min(sizes):.1f} to {max(sizes):.1f}"
        rows.append((f"[{title_of(family)}]({link}{family}.md)", len(names), span, tags or "-"))
    return markdown(("family", "models", "parameters (M)", "published weights"), rows)


def published_weights(family: str = "") -> str:
    """Published weights of a family, or of all: what ``plasm list --weights`` prints."""
    names = {name for key, group in families().items() for name in group if family in ("", key)}
    rows = [row for row in weights.entries() if row.model in names]
    return weights.markdown_table(rows) if rows else "No weights are published yet."


def league(stage: str = "") -> str:
    """Rows of the league that are done, from the CSV of ``benchmarks/league.py``: its results, or the trials."""
    with (RESULTS / "league.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if stage == "trials":
        lines = [
            (
                f"`{row['model']}`",
                ", ".join(f"{name} {value}" for name, value in json.loads(row["shape"]).items()),
                f"{row['optimizer']}, {float(row['lr']):g}",
                row["val_mse"],
            )
            for row in rows if row["stage"] in ("shape", "recipe")
        ]  # fmt: skip
        return markdown(("model", "shape", "optimizer, rate", "MSE"), lines)
    finals = [row for row in rows if row["stage"] in ("league", "lost")]
    if not finals:
        return "No system has its 48,000 clips yet."
    table: list[tuple[str, ...]] = []

    def error(row: dict[str, str]) -> float:
        # Of the test clips, where it was measured. NaN, of a loss that was not finite, has no place in an order.
        value = float(json.loads(row["metrics"] or "{}").get("mse", row["val_mse"]))
        return math.inf if math.isnan(value) else value

    for row in sorted(finals, key=error):
        scores = json.loads(row["metrics"] or "{}")
        shown = (scores.get(name) for name in ("mse", "mae", "ssim", "psnr"))
        clips = int(row["clips"])
        lost = f", lost{f' after {clips:,} clips' * (clips < 48_000)}" if row["stage"] == "lost" else ""
        table.append((
            f"`{row['model']}`{lost}", row["seed"],
            *(f"{score:.4g}" if score is not None else "-" for score in shown),
            row["val_mse"], f"{int(row['parameters']) / 1e6:.2f} M", f"{float(row['macs']) / 1e9:.2f} G",
            *(f"{float(row[name]):g}" if float(row[name]) else "-" for name in ("forward", "training", "memory")),
            f"{row['optimizer']}, {float(row['lr']):g}", row["hours"],
        ))  # fmt: skip
    titles = (
        "model", "seed", "MSE", "MAE", "SSIM", "PSNR (dB)", "validation MSE", "parameters", "MACs",
        "forecasts (clips/s)", "training (clips/s)", "memory of a step (MiB)", "optimizer, rate", "hours",
    )  # fmt: skip
    return markdown(titles, table)


def scores(_: str = "") -> str:
    """Error of the published weights with other scores in PLA: what ``benchmarks/scores.py`` wrote."""
    with (RESULTS / "scores.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return markdown(
        ("scores of the heads", "MSE", "clips", "weights"),
        [(row["scores"], row["mse"], row["clips"], f"`{row['weights']}`") for row in rows],
    )


@cache
def _published() -> list[dict[str, str]]:
    with measuring.PUBLISHED.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def published(family: str) -> str:
    """What papers and model zoos print of a family's models, with the source of each row."""
    rows = [row for row in _published() if row["model"] in families()[family]]
    titles = ("model", "epochs", "MSE", "MAE", "SSIM (as its source has it)", "source")
    return markdown(
        titles, ((f"`{r['model']}`", r["epochs"], r["mse"], r["mae"], r["ssim"], r["source"]) for r in rows)
    )


def recipes(family: str) -> str:
    """Default hyperparameters of ``plasm train`` for the models of a family, by its record."""
    lines = []
    for name in families()[family]:
        defaults = recipe(name, "train")
        if not defaults:
            continue
        given = {"model": name, "data": "mmnist", "data_dir": ".", "out": "."}
        config = create_config(TrainConfig, given)
        args = getattr(timm.create_model(name, device="meta"), "_model_args", {})
        warm_up = f", {config.warmup_epochs} epochs of warm-up" if config.warmup_epochs else ""
        decay = f", weight decay {config.weight_decay:g}" if config.weight_decay else ""
        lines.append((
            f"`{name}`", f"{config.optimizer}, {config.lr:g}{decay}", config.schedule + warm_up, config.epochs,
            config.batch_size, f"{config.clip_grad:g}" if config.clip_grad else "-",
            f"{args['drop_path_rate']:g}" if args.get("drop_path_rate") else "-",
        ))  # fmt: skip
    titles = ("model", "optimizer, rate", "schedule", "epochs", "batch", "clipping", "drop path")
    return markdown(titles, lines)


def layers(_: str = "") -> str:
    """The layers, each a link to the reference."""
    rows = [
        (f"[`{name}`][plasm.layers.{name}]", first_line(getattr(plasm_layers, name))) for name in plasm_layers.__all__
    ]
    return markdown(("layer", "what it is"), rows)


def ablation(name: str) -> str:
    """Rows of a table of ``benchmarks/ablations.py``, from the CSV it wrote: mean and range over the seeds.

    The paper's figure stands beside them where it has such a row.
    """
    with (RESULTS / f"ablations_{name}.csv").open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    rows = []
    for row in dict.fromkeys(line["row"] for line in lines):
        found = [float(line["mse"]) for line in lines if line["row"] == row]
        span = f"{min(found):.1f} to {max(found):.1f}" if len(found) > 1 else "-"
        paper = next((line.get("paper") or "" for line in lines if line["row"] == row), "")
        rows.append((row, f"{statistics.mean(found):.1f}", span, len(found), paper))
    titles = ("row", "MSE, mean", "lowest to highest", "seeds", "the paper")
    columns = len(titles) if any(row[-1] for row in rows) else len(titles) - 1
    return markdown(titles[:columns], [row[:columns] for row in rows])


def _setting(rows: Sequence[Measurement]) -> str:
    """What the rows of a measurement have in common, in a line."""

    def all_of(values: Iterable[object]) -> str:
        return " and ".join(map(str, dict.fromkeys(values)))

    where = all_of(f"{row.device} ({row.hardware})" for row in rows)
    threads = all_of(row.threads for row in rows)
    return (
        f"Measured on {where}, torch {all_of(row.torch for row in rows)}, {all_of(row.dtype for row in rows)}, batch "
        f"{all_of(row.batch_size for row in rows)}, {threads} thread{'' if threads == '1' else 's'}."
    )


def benchmark(_: str = "") -> str:
    """Models side by side, from the CSV that ``plasm benchmark`` wrote."""
    rows = measuring.read_csv(RESULTS / "benchmark.csv")
    titles, *lines = measuring.table(rows)
    # What is the same in each row is in the line above the table, or of no interest.
    settings = ("mode", "runtime", "threads", "from eager")
    columns = []
    for n, title in enumerate(titles):
        cells = {line[n] for line in lines}
        if title != "frames/s" and cells != {"-"} and (title not in settings or len(cells) > 1):
            columns.append(n)
    # Cells stay on one line. The page says whose the published errors are.
    hyphen = "\N{NON-BREAKING HYPHEN}"
    chosen = [[line[n].replace(" (OpenSTL)", "").replace("-", hyphen) for n in columns] for line in lines]
    long = {"M": "parameters (M)", "G": "MACs (G)", "MB": "memory (MB)"}
    heads = [long.get(titles[n], titles[n].replace(" (whose)", "")) for n in columns]
    return f"{_setting(rows)}\n\n{markdown(heads, chosen)}"


def benchmark_picture() -> bytes:
    """Error against cost and speed of the same models: a PNG."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "benchmark.png"
        measuring.picture(measuring.read_csv(RESULTS / "benchmark.csv"), file)
        return file.read_bytes()


def runtime(_: str = "") -> str:
    """Runtimes side by side, from the CSV that ``plasm benchmark --runtime`` wrote: speed, and distance to eager."""
    rows = measuring.read_csv(RESULTS / "runtime.csv")
    eager = {(row.model, row.threads): row.clips_per_second for row in rows if row.runtime == "eager"}
    lines = [
        (
            f"`{row.model}`",
            row.runtime,
            row.threads,
            f"{row.clips_per_second:.1f}",
            f"{row.lowest:.1f} to {row.highest:.1f}",
            f"{row.clips_per_second / eager[row.model, row.threads]:.2f}",
            f"{row.difference:.1g}",
        )
        for row in rows
        if row.mode == "inference"
    ]
    titles = ("model", "runtime", "threads", "clips a second", "lowest to highest", "times eager", "largest difference")
    return f"{_setting(rows)}\n\n{markdown(titles, lines)}"


def precision(_: str = "") -> str:
    """Half precision and int8 beside float32, from the CSV that ``benchmarks/precision.py`` wrote."""
    with (RESULTS / "precision.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    whole = float(rows[0]["mse"])
    lines = [
        (
            row["precision"],
            f"{int(row['bytes']) / 1e6:.1f}",
            f"{float(row['mse']):.2f}",
            f"{float(row['mse']) - whole:+.2f}",
        )
        for row in rows
    ]
    about = f"`{rows[0]['weights']}`, MSE on the first {int(rows[0]['clips']):,} test clips:"
    return f"{about}\n\n{markdown(('precision', 'MB', 'MSE', 'from float32'), lines)}"


def rain(event: str) -> str:
    """Scores by lead time, from the CSV files of ``benchmarks/rain.py``: of an event, or ``trials``."""
    with (RESULTS / f"rain_{event}.csv").open(encoding="utf-8", newline="") as stream:
        found = {
            (row["method"], float(row["threshold_mm_h"]), float(row["lead_minutes"])): row
            for row in csv.DictReader(stream)
        }
    known = {lead for _, _, lead in found}
    leads = [lead for lead in ((4, 16, 28, 48) if event == "trials" else (5, 15, 30, 45, 60)) if lead in known]
    baselines = ("persistence", "optical flow")
    methods = [*baselines, *dict.fromkeys(method for method, _, _ in found if method not in baselines)]
    lines = []
    for title, key, threshold in (
        ("CSI, .1 mm/h", "csi", 0.1), ("CSI, 1 mm/h", "csi", 1.0), ("CSI, 5 mm/h", "csi", 5.0),
        ("FSS at 16 km, 1 mm/h", "fss_16km", 1.0), ("bias, 1 mm/h", "bias", 1.0),
    ):  # fmt: skip
        for method in methods:
            name = "`plasm_radar`" if method == "model" else method
            lines.append((title, name, *(f"{float(found[method, threshold, lead][key]):.3f}" for lead in leads)))
    return markdown(("score", "forecast", *(f"{lead} min" for lead in leads)), lines)


def rain_pooled(_: str) -> str:
    """CSI and frequency bias from the counts of all test events together, as ``rain`` of each."""
    counts: dict[tuple[str, float, float], list[float]] = {}
    for event in ("knmi", "fmi"):
        with (RESULTS / f"rain_{event}.csv").open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                total = counts.setdefault(
                    (row["method"], float(row["threshold_mm_h"]), float(row["lead_minutes"])), [0.0, 0.0, 0.0]
                )
                for number, key in enumerate(("hits", "misses", "false_alarms")):
                    total[number] += float(row[key])
    leads = sorted({lead for _, _, lead in counts})
    lines = []
    for title, threshold in (("CSI, .1 mm/h", 0.1), ("CSI, 1 mm/h", 1.0), ("bias, 1 mm/h", 1.0)):
        for method in dict.fromkeys(method for method, _, _ in counts):
            values = []
            for lead in leads:
                hits, misses, alarms = counts[method, threshold, lead]
                said = hits + alarms
                values.append(hits / (said + misses) if title.startswith("CSI") else said / (hits + misses))
            name = "`plasm_radar`" if method == "model" else method
            lines.append((title, name, *(f"{value:.3f}" for value in values)))
    return markdown(("score", "forecast", *(f"{lead:g} min" for lead in leads)), lines)


TABLES: dict[str, Callable[[str], str]] = {
    "all": all_models,
    "families": family_index,
    "layers": layers,
    "league": league,
    "ablation": ablation,
    "benchmark": benchmark,
    "models": models,
    "precision": precision,
    "published": published,
    "rain": rain,
    "rain_pooled": rain_pooled,
    "recipes": recipes,
    "runtime": runtime,
    "scores": scores,
    "weights": published_weights,
}


def fill(page: str) -> str:
    """Put the tables into a page.

    Raises:
        KeyError: If a page asks for a table that there is not.
    """
    return MARK.sub(lambda mark: TABLES[mark["name"]](mark["argument"]), page)


def family_page(family: str) -> str:
    """The page of a family that nobody has written one for: its docstring, whose title is not said twice."""
    text = (module_of(family).__doc__ or "").strip().replace("``", "`")
    before, _, after = text.partition(":")
    if before == title_of(family) and after:
        text = after.strip()[0].upper() + after.strip()[1:]
    return f"# {title_of(family)}\n\n{text}\n"


def with_family_tables(page: str, family: str) -> str:
    """Add the tables of the family to its page, where it does not place them itself."""
    record = getattr(module_of(family), "FAMILY", None)
    sections = [
        ("Models", f"<!-- table: models {family} -->"),
        ("Weights", f"<!-- table: weights {family} -->"),
    ]
    if any(recipe(name, "train") for name in families()[family]):
        sections.append(("Training", f"<!-- table: recipes {family} -->"))
    if any(row["model"] in families()[family] for row in _published()):
        sections.append(("Published results", f"<!-- table: published {family} -->"))
    for title, mark in sections:
        if mark not in page:
            page += f"\n## {title}\n\n{mark}\n"
    if record is not None and record.citation.strip() not in page:
        page += f"\n## Cite\n\n[{record.title}]({record.url})\n\n```bibtex\n{record.citation.strip()}\n```\n"
    return page
