"""Put the weights of a run into the package: half precision, measured on the test set, described in the manifest.

Usage: python tools/embed_weights.py RUN TAG --data-dir DIR

Rewrites plasm/weights/manifest.json and the table of docs/models.md, which is made from it.
"""

import hashlib
import json
import re
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import click

from plasm import training, weights
from plasm.data import create_dataset

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "plasm" / "weights"
PAGE = ROOT / "docs" / "models.md"


def describe_pretraining(init: str | None, frozen: bool | None) -> str | None:
    """What phase 1 was, from its own run."""
    if init is None:
        return None
    run = json.loads((Path(init) / "run.json").read_text())
    encoder = "trained on" if frozen is False else "frozen"
    return f"{run['epochs'] * run['clips_per_epoch']:,} clips, r0 {run['mask_ratio']}, encoder {encoder}"


def table(entries: list[weights.Entry]) -> str:
    """The manifest as Markdown."""
    lines = [
        "| model and tag | data | clips seen | phase 1 | MSE | MAE | SSIM | SSIM (published) | PSNR | size | sha256 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for e in entries:
        m = e.metrics
        scores = f"{m['mse']:.2f} | {m['mae']:.2f} | {m['ssim']:.4f} | {m['ssim_published']:.4f} | {m['psnr']:.2f}"
        lines.append(
            f"| `{e.model}.{e.tag}` | {e.data} | {e.clips:,} | {e.pretraining or 'none'} | {scores} | "
            f"{e.size / 1e6:.1f} MB | `{e.sha256[:12]}...` |"
        )
    return "\n".join(lines)


@click.command()
@click.argument("run", type=Path)
@click.argument("tag")
@click.option("--data-dir", type=Path, required=True, help="Folder with the four MNIST files.")
def main(run: Path, tag: str, data_dir: Path) -> None:
    """Embed the weights of RUN under TAG."""
    config = json.loads((run / "run.json").read_text())
    name = config["model"]
    file = FOLDER / f"{name}.{tag}.safetensors"
    beside = file.with_name(f".{file.name}")
    tensors = weights.load_tensors(run / "model.safetensors")
    weights.save_tensors({key: tensor.half() for key, tensor in tensors.items()}, beside)
    model = training.load_model(name, str(beside)).eval()
    clips = create_dataset(config["data"], data_dir, "test", num_frames=model.in_frames + model.out_frames)
    metrics = training.evaluate({"model": model.predict}, clips, model.in_frames, model.out_frames)["model"]
    content = beside.read_bytes()
    entry = weights.Entry(
        model=name,
        tag=tag,
        file=file.name,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        license="Apache-2.0",
        data=config["data"],
        clips=json.loads((run / "log.jsonl").read_text().splitlines()[-1])["clips"],
        pretraining=describe_pretraining(config["init"], config["freeze_encoder"]),
        command=f"plasm evaluate --model {name}.{tag} --data {config['data']} --data-dir DIR",
        date=datetime.fromtimestamp((run / "model.safetensors").stat().st_mtime, timezone.utc).date().isoformat(),
        metrics=metrics.means,
    )
    rows = [entry if (e.model, e.tag) == (name, tag) else e for e in weights.entries()]
    rows += [] if entry in rows else [entry]
    beside.replace(file)
    (FOLDER / "manifest.json").write_text(json.dumps([asdict(e) for e in rows], indent=2) + "\n")
    page = re.sub(
        r"(?<=<!-- weights -->\n).*?(?=\n<!-- end -->)", lambda _: table(rows), PAGE.read_text(), flags=re.DOTALL
    )
    PAGE.write_text(page)
    click.echo(table([entry]))


if __name__ == "__main__":
    main()
