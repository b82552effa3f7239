"""The command that measures models side by side."""

from pathlib import Path
from typing import Any

import click

from plasm import benchmark as measuring

from .options import pairs


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL ...]")
@click.option("--device", default="auto", help="Of torch; auto is a GPU if there is one.", show_default=True)
@click.option("--batch-size", type=int, default=4, show_default=True)
@click.option("--train", is_flag=True, help="Time training steps as well.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32",
              help="But for float32, by autocast.")  # fmt: skip
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
    models: tuple[str, ...], runtime: str, threads: str | None, model_arg: tuple[str, ...], **arguments: Any
) -> None:
    """Measure MODELs side by side: parameters, MACs, speed, memory, ratio to a matrix product's peak.

    MODEL may be a pattern; by default '*_mmnist', of each family and translator one. They run in turn, in rounds; of
    each the median is given, and the range. Beside it stands the published error on Moving MNIST, after 200 epochs and
    after 2,000, and that of its own weights, where there are some.
    """
    counts = threads.split(",") if threads else []
    if not all(count.strip().isdecimal() for count in counts):
        raise ValueError(f"--threads takes numbers with commas between, such as 1,2, got {threads!r}")
    rows = measuring.run(
        models, runtime=runtime.split(","), threads=[int(count) for count in counts],
        model_args=pairs("model_args", model_arg), **arguments,
    )  # fmt: skip
    click.echo(measuring.markdown(rows))
    click.echo(
        f"{rows[0].device}, {rows[0].dtype}, batch {rows[0].batch_size}, {arguments['rounds']} round(s); written to "
        f"{arguments['out']}"
    )
