"""Commands of data sets."""

from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import torch

from plasm import data, pictures
from plasm.files import check_writable

from .options import Group, pairs

_SHOWN_CLIPS = 4


@click.group(name="data", cls=Group)
def data_command() -> None:
    """Prepare data sets, count their clips, and draw some."""


@data_command.command()
@click.argument("name", type=click.Choice(["kth"]))
@click.option("--data-dir", required=True, type=Path, help="Folder of the data set's files; the cache goes there, too.")
@click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    help="What to do at a missing or damaged video.",
)
def prepare(name: str, data_dir: Path, on_error: data.OnError) -> None:
    """Decode a data set once into a file that is mapped. A run that was stopped goes on where it was."""
    cache = data.prepare_kth(data_dir, on_error=on_error)
    click.echo(f"{cache}: {cache.stat().st_size / 2**20:.0f} MiB")
    click.echo("Clips are cut from the ends of runs of frames backwards; docs/data/kth.md says how and why:")
    for num_frames in (30, 50):
        try:
            _print_counts(name, data_dir, num_frames, {})
        except ValueError as error:
            # The cache is made, whatever can be cut from it.
            click.echo(str(error))


@data_command.command()
@click.argument("name")
@click.option("--data-dir", required=True, type=Path, help="Folder of the data set's files.")
@click.option("--num-frames", type=click.IntRange(min=1), required=True, help="Input and output frames of a clip.")
@click.option("--data-arg", "data_args", multiple=True, metavar="NAME=VALUE", help="Option of the data set.")
def count(name: str, data_dir: Path, num_frames: int, data_args: tuple[str, ...]) -> None:
    """Count the clips of each split, beside the paper's numbers."""
    _print_counts(name, data_dir, num_frames, pairs("data_args", data_args))


@data_command.command()
@click.argument("name")
@click.option("--data-dir", required=True, type=Path, help="Folder of the data set's files.")
@click.option("--num-frames", type=click.IntRange(min=1), required=True, help="Input and output frames of a clip.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Picture to write: a .png.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="train", help="Where clips come from.")
@click.option("--data-arg", "data_args", multiple=True, metavar="NAME=VALUE", help="Option of the data set.")
def show(
    name: str, data_dir: Path, num_frames: int, out: Path, split: Literal["train", "val", "test"],
    data_args: tuple[str, ...],
) -> None:  # fmt: skip
    """Draw four clips, from the split's first to its last, as rows of frames."""
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out is a .png, got {out}")
    check_writable(out)
    clips = data.create_dataset(name, data_dir, split, num_frames=num_frames, **pairs("data_args", data_args))
    total: int = len(clips)  # type: ignore[arg-type]
    # Few clips are drawn once each.
    indices = sorted({round(index) for index in np.linspace(0, total - 1, _SHOWN_CLIPS).tolist()})
    shown = torch.stack([clips[index] for index in indices])
    sheet = pictures.contact_sheet(pictures.drawable(shown), [f"clip {i:,}" for i in indices])
    out.parent.mkdir(parents=True, exist_ok=True)
    pictures.save_png(sheet, out)
    click.echo(f"{out}: {len(indices)} of {total:,} clips of {name}, {split}")
    if shown.shape[2] > 3:
        click.echo(f"of {shown.shape[2]} channels the first is drawn, in gray")


def _print_counts(name: str, root: Path, num_frames: int, options: dict[str, Any]) -> None:
    for split, (number, published) in data.count_clips(name, root, num_frames=num_frames, **options).items():
        note = ", with the validation clips" if split == "train" else ""
        paper = "" if published is None else f" (the paper: {published:,}{note})"
        click.echo(f"{split:<6}{number:>9,} clips of {num_frames} frames{paper}")
