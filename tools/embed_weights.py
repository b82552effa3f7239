"""Put a row for the weights of a run into the manifest, measured on the test set, and the file into the package.

Usage: python tools/embed_weights.py RUN TAG --data-dir DIR

The file in the package is of half precision, and is what is measured. With --repo and --revision, which `plasm push`
prints, the row points at the Hub instead, and the run's own file is measured. The tables of the
documentation are made from the manifest.
New weights come before the model's others: they are what it has by default, unless with
--no-default. Then `python tools/create_demo.py models` makes the files of `plasm demo` anew.
"""

import json
import shutil
import tempfile
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from plasm import create_model, weights
from plasm.data import create_dataset
from plasm.evaluation import Metrics, evaluate, forecast
from plasm.files import atomic_write
from plasm.models import frame_counts, load_model
from plasm.runs import read_history
from plasm.weights.manifest import FOLDER


def describe_pretraining(runs: list[dict[str, Any]]) -> str | None:
    """What phase 1 was, and whether a later run trained the encoder on."""
    first, *later = runs
    if "weights" in first:
        return weights.entry(*first["weights"].split(".", 1)).pretraining
    if first["command"] != "pretrain":
        return None
    encoder = "frozen" if all(run["freeze_encoder"] for run in later) else "trained on"
    return f"{first['clips']:,} clips, r0 {first['mask_ratio']}, encoder {encoder}"


def seen(runs: list[dict[str, Any]]) -> tuple[int, int]:
    """Epochs and clips of phase 2 in a history; those of published weights it began with are in their row."""
    epochs = clips = 0
    for run in runs:
        if "weights" in run:
            row = weights.entry(*run["weights"].split(".", 1))
            epochs, clips = epochs + row.epochs, clips + row.clips
        elif run["command"] == "train":
            epochs, clips = epochs + run["epochs"], clips + run["clips"]
    return epochs, clips


def measure(file: Path, recipe: dict[str, Any], data_dir: Path, num_clips: int) -> Metrics:
    """What the weights of a file do on the test set."""
    model = load_model(recipe["model"], str(file), **recipe["model_args"]).eval()
    in_frames, out_frames = frame_counts(model)
    clips = create_dataset(
        recipe["data"], data_dir, "test", num_clips=num_clips, num_frames=in_frames + out_frames, **recipe["data_args"]
    )
    return evaluate({"model": forecast(model)}, clips, in_frames, out_frames)["model"]


@click.command()
@click.argument("run", type=Path)
@click.argument("tag")
@click.option("--data-dir", type=Path, required=True, help="Folder of the data set's files.")
@click.option("--repo", help="Repository on the Hub that holds the run's weights.")
@click.option("--revision", help="Commit of the repository.")
@click.option("--num-clips", default=10_000, help="Test clips of a data set that is made rather than read.")
@click.option("--license", default="Apache-2.0", help="Of the weights, by SPDX.")
@click.option("--default/--no-default", default=True, help="Put them before the model's others, or after them.")
@click.option("--note", default="", help="What else one must know of them: where they depart from the paper.")
@click.option("--scores", type=Path, help="Write the scores, and the MSE of each frame, into this file as JSON, too.")
def main(
    run: Path,
    tag: str,
    data_dir: Path,
    repo: str | None,
    revision: str | None,
    num_clips: int,
    license: str,
    default: bool,
    note: str,
    scores: Path | None,
) -> None:
    """Give the weights of RUN the TAG."""
    if (repo is None) != (revision is None):
        raise click.UsageError("--repo and --revision go together")
    runs = read_history(run)
    known = {name for row in weights.entries() for name in (row.name, row.model)}
    if any(each.get("clips") is None and each.get("weights") not in known for each in runs):
        raise click.UsageError(f"{run} comes of what is no run, or has lost its log: what it has seen is not known")
    recipe, (epochs, clips_seen) = runs[-1], seen(runs)
    name, source = recipe["model"], run / "model.safetensors"
    kept = f"{name}.{tag}.safetensors"
    # As JSON has it, lists for tuples.
    own = json.loads(json.dumps(getattr(create_model(name), "_model_args", {})))
    with tempfile.TemporaryDirectory() as folder:
        # What is in the package stays until the new file is measured.
        file = source if repo else Path(folder) / kept
        if not repo:
            weights.save_tensors(weights.half_precision(weights.load_tensors(source)), file)
        metrics = measure(file, recipe, data_dir, num_clips)
        if not repo:
            with atomic_write(FOLDER / kept) as beside:
                shutil.copyfile(file, beside)
            file = FOLDER / kept
    command = f"plasm evaluate --model {name}.{tag} --data {recipe['data']} --data-dir DIR"
    if recipe["data"] == "radar":
        # There `plasm evaluate` counts rain on whole composites; these scores are of crops.
        command = f"python tools/embed_weights.py RUN {tag} --data-dir DIR"
    entry = weights.Entry(
        model=name,
        tag=tag,
        file=file.name,
        repo=repo,
        revision=revision,
        size=file.stat().st_size,
        sha256=weights.file_sha256(file),
        license=license,
        data=recipe["data"],
        epochs=epochs,
        clips=clips_seen,
        pretraining=describe_pretraining(runs),
        metrics=metrics.means,
        command=command,
        date=datetime.fromtimestamp(source.stat().st_mtime, timezone.utc).date().isoformat(),
        model_args={key: value for key, value in recipe["model_args"].items() if own.get(key) != value},
        note=note,
    )
    # Read again: while these weights were measured, others may have come.
    weights.entries.cache_clear()
    rows = [row for row in weights.entries() if row.name != entry.name]
    numbers = [number for number, row in enumerate(rows) if row.model == name] or [len(rows)]
    place = numbers[0] if default else numbers[-1] + 1
    rows.insert(place, entry)
    with atomic_write(FOLDER / "manifest.json") as beside:
        beside.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    if scores is not None:
        scores.write_text(json.dumps({**metrics.means, "mse_per_frame": metrics.per_frame["mse"]}), encoding="utf-8")
    click.echo(weights.markdown_table([entry]))


if __name__ == "__main__":
    main()
