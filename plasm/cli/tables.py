"""Metrics as the field's tables print them."""

import click

from plasm.metrics import Metrics

__all__ = ["print_metrics"]

# The factors by which the field's tables print these data sets.
_TABLE_FACTORS: dict[str, dict[str, float]] = {"taxibj": {"mse": 100}, "human36m": {"mse": 0.1, "mae": 0.01}}


def print_metrics(table: dict[str, Metrics], name: str = "") -> None:
    """Print a row for each forecast, scaled as the tables of the data set ``name`` are."""
    columns = {"MSE": "mse", "MAE": "mae", "SSIM": "ssim", "SSIM (published)": "ssim_published", "PSNR (dB)": "psnr"}
    factors = _TABLE_FACTORS.get(name, {})
    titles = [title + (f" x{factors[key]:g}" if key in factors else "") for title, key in columns.items()]
    width = max(map(len, table)) + 2
    click.echo(" " * width + "".join(f"{title:>18}" for title in titles))
    for row, metrics in table.items():
        scaled = {key: metrics.means[key] * factors.get(key, 1) for key in columns.values()}
        values = (f"{value:>18.{4 if 'ssim' in key else 2}f}" for key, value in scaled.items())
        click.echo(f"{row:<{width}}" + "".join(values))
