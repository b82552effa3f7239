"""Validation MSE of several runs against the clips they have seen, as a table and a picture.

Usage: python benchmarks/compare_runs.py RUN ... --out curves.png
"""

import json
from pathlib import Path

import click
from matplotlib.figure import Figure


@click.command()
@click.argument("runs", nargs=-1, required=True, type=Path)
@click.option("--out", required=True, type=Path, help="PNG to write.")
def main(runs: tuple[Path, ...], out: Path) -> None:
    """Compare the logs of RUNS."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    for run in runs:
        log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        points = [(row["clips"], row["val_mse"]) for row in log if "val_mse" in row]
        axis.plot(*zip(*points, strict=True), marker="o", label=run.name)
        click.echo(f"{run.name:<16}" + "".join(f"{clips:>8}: {mse:<8.2f}" for clips, mse in points))
    axis.set(xlabel="clips seen", ylabel="validation MSE")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
