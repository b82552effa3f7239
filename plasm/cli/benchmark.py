"""The command that measures models side by side."""

from pathlib import Path

import click
import torch

import plasm
from plasm import benchmark as measuring
from plasm.benchmark import Measurement
from plasm.devices import choose_device, clear_failures, keep_freed_memory

from .options import pairs

__all__ = ["benchmark"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL ...]")
@click.option("--device", default="auto", help="Of torch; auto is a GPU if there is one.", show_default=True)
@click.option("--batch-size", type=int, default=4, show_default=True)
@click.option("--train", is_flag=True, help="Time training steps as well.")
@click.option("--dtype", type=click.Choice(list(_DTYPES)), default="float32", help="But for float32, by autocast.")
@click.option("--runtime", default="eager", show_default=True,
              help=f"One, or several with commas between: {', '.join(measuring.RUNTIMES)}.")  # fmt: skip
@click.option("--threads", help="Of the CPU, a number, or several with commas between; torch's if not given.")
@click.option("--rounds", type=int, default=5, help="How often each model is timed.", show_default=True)
@click.option(
    "--model-arg", metavar="NAME=VALUE", multiple=True, help="Argument of every constructor. May be repeated."
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("benchmark"), show_default=True,
              help="Folder for benchmark.csv, benchmark.md and benchmark.png; or one .csv file.")  # fmt: skip
def benchmark(
    models: tuple[str, ...],
    device: str,
    batch_size: int,
    train: bool,
    dtype: str,
    runtime: str,
    threads: str | None,
    rounds: int,
    model_arg: tuple[str, ...],
    out: Path,
) -> None:
    """Measure MODELs side by side: parameters, multiply-adds, speed, memory, share of a matrix product's peak.

    By default one Moving MNIST model of each family and translator. They run in turn, in rounds; of each the median is
    given, and the range. Beside it stands the published error on Moving MNIST, after 200 epochs and after 2,000.
    """
    names = models or tuple(name for name in plasm.list_models() if name.endswith("_mmnist"))
    if unknown := [name for name in names if name not in plasm.list_models()]:
        raise ValueError(
            f"no model of plasm is called {', '.join(unknown)}; there are: {', '.join(plasm.list_models())}"
        )
    where = choose_device(device)
    keep_freed_memory(where)
    counts = tuple(int(count) for count in threads.split(",")) if threads else (torch.get_num_threads(),)
    arguments = pairs("model_args", model_arg).get("model_args", {})
    with clear_failures("a smaller --batch-size, or fewer models, take less"):
        rows = measuring.measure(
            names, where, batch_size, train, _DTYPES[dtype], runtime.split(","), rounds, arguments, counts
        )
    table = _markdown(rows)
    if out.suffix == ".csv":
        out.parent.mkdir(parents=True, exist_ok=True)
        measuring.write_csv(rows, out)
    else:
        out.mkdir(parents=True, exist_ok=True)
        measuring.write_csv(rows, out / "benchmark.csv")
        (out / "benchmark.md").write_text(table, encoding="utf-8")
        measuring.picture(rows, out / "benchmark.png")
    click.echo(table)
    click.echo(f"{where.type}, {dtype}, batch {batch_size}, {rounds} round(s); written to {out}")


def _markdown(rows: list[Measurement]) -> str:
    """A table in Markdown that is legible as it is."""
    titles, *lines = measuring.table(rows)
    widths = [max(len(line[column]) for line in [titles, *lines]) for column in range(len(titles))]
    rule = tuple("-" * width for width in widths)
    return "".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |\n"
        for line in [titles, rule, *lines]
    )
