"""Put a row for the weights of a run into the manifest, measured on the test set, and the file into the package.

Usage: python tools/embed_weights.py RUN TAG --data-dir DIR

The file in the package is of half precision, and is what is measured. With --repo and --revision, which `plasm push`
prints, the row points at the Hub instead, and the run's own file is measured. The tables of the
documentation are made from the manifest.
New weights come first there: they are what the model has by default. Then `python tools/make_demo.py model` makes the
file of `plasm demo` anew.
"""

import json
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from plasm import weights
from plasm.data import create_dataset
from plasm.evaluation import evaluate, forecast
from plasm.loading import frame_counts, load_model
from plasm.runs import read_history
from plasm.weights.manifest import FOLDER


def describe_pretraining(runs: list[dict[str, Any]]) -> str | None:
    """What phase 1 was, and whether a later run trained the encoder on."""
    first, *later = runs
    if first["command"] != "pretrain":
        return None
    encoder = "frozen" if all(run["freeze_encoder"] for run in later) else "trained on"
    return f"{first['clips']:,} clips, r0 {first['mask_ratio']}, encoder {encoder}"


@click.command()
@click.argument("run", type=Path)
@click.argument("tag")
@click.option("--data-dir", type=Path, required=True, help="Folder of the data set's files.")
@click.option("--repo", help="Repository on the Hub that holds the run's weights.")
@click.option("--revision", help="Commit of the repository.")
def main(run: Path, tag: str, data_dir: Path, repo: str | None, revision: str | None) -> None:
    """Give the weights of RUN the TAG."""
    if (repo is None) != (revision is None):
        raise click.UsageError("--repo and --revision go together")
    runs = read_history(run)
    if any(each.get("clips") is None for each in runs):
        raise click.UsageError(f"{run} comes of what is no run, or has lost its log: what it has seen is not known")
    recipe, forecasting = runs[-1], [each for each in runs if each["command"] == "train"]
    name, source = recipe["model"], run / "model.safetensors"
    file = source if repo else FOLDER / f"{name}.{tag}.safetensors"
    if not repo:
        tensors = {key: tensor.half() for key, tensor in weights.load_tensors(source).items()}
        weights.save_tensors(tensors, file)
    model = load_model(name, str(file), **recipe["model_args"]).eval()
    in_frames, out_frames = frame_counts(model)
    clips = create_dataset(recipe["data"], data_dir, "test", num_frames=in_frames + out_frames, **recipe["data_args"])
    metrics = evaluate({"model": forecast(model)}, clips, in_frames, out_frames)["model"]
    entry = weights.Entry(
        model=name,
        tag=tag,
        file=file.name,
        repo=repo,
        revision=revision,
        size=file.stat().st_size,
        sha256=weights.file_sha256(file),
        license="Apache-2.0",
        data=recipe["data"],
        epochs=sum(each["clips"] // each["clips_per_epoch"] for each in forecasting),
        clips=sum(each["clips"] for each in forecasting),
        pretraining=describe_pretraining(runs),
        metrics=metrics.means,
        command=f"plasm evaluate --model {name}.{tag} --data {recipe['data']} --data-dir DIR",
        date=datetime.fromtimestamp(source.stat().st_mtime, timezone.utc).date().isoformat(),
        model_args=recipe["model_args"],
    )
    rows = [entry if (e.model, e.tag) == (name, tag) else e for e in weights.entries()]
    rows = rows if entry in rows else [entry, *rows]
    (FOLDER / "manifest.json").write_text(json.dumps([asdict(e) for e in rows], indent=2) + "\n", encoding="utf-8")
    click.echo(weights.markdown_table([entry]))


if __name__ == "__main__":
    main()
