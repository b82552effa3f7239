"""Metrics as the field's tables print them."""

import click

from plasm.metrics import Metrics

__all__ = ["print_metrics"]

_COLUMNS = {"MSE": "mse", "MAE": "mae", "SSIM": "ssim", "SSIM (published)": "ssim_published", "PSNR (dB)": "psnr"}
# The factors by which the field's tables print these data sets.
_TABLE_FACTORS: dict[str, dict[str, float]] = {"taxibj": {"mse": 100}, "human36m": {"mse": 0.1, "mae": 0.01}}
# Table III prints a thousand times the mean over a frame's values, where all others print their sum.
_TABLE_MEANS: dict[str, dict[str, float]] = {"kitticaltech": {"mse": 1000}}


def print_metrics(table: dict[str, Metrics], name: str = "", frame_values: int = 1) -> None:
    """Print a row for each forecast, scaled as the tables of the data set ``name`` are.

    Args:
        table: Of each forecast.
        name: Of the data set.
        frame_values: C * H * W, by which the sum over a frame becomes a mean.
    """
    sums, means = _TABLE_FACTORS.get(name, {}), _TABLE_MEANS.get(name, {})
    factors = sums | {key: factor / frame_values for key, factor in means.items()}
    known = {title: key for title, key in _COLUMNS.items() if all(key in metrics.means for metrics in table.values())}
    suffixes = {key: f" x{factor:g}" for key, factor in sums.items()}
    suffixes |= {key: f" x{factor:g} (mean)" for key, factor in means.items()}
    titles = [title + suffixes.get(key, "") for title, key in known.items()]
    width = max(map(len, table)) + 2
    click.echo(" " * width + "".join(f"{title:>18}" for title in titles))
    for row, metrics in table.items():
        scaled = {key: metrics.means[key] * factors.get(key, 1) for key in known.values()}
        values = (f"{value:>18.{4 if 'ssim' in key else 2}f}" for key, value in scaled.items())
        click.echo(f"{row:<{width}}" + "".join(values))
    for note in dict.fromkeys(metrics.note for metrics in table.values() if metrics.note):
        click.echo(note)
