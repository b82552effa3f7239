"""Metrics as the field's tables print them."""

from .metrics import Metrics

_COLUMNS = {
    "MSE": "mse",
    "MAE": "mae",
    "SSIM": "ssim",
    "SSIM (published)": "ssim_published",
    "PSNR (dB)": "psnr",
    "LPIPS": "lpips",
}
# Under the names of those whose code scores so; see ``published.py``.
_PUBLISHED = {
    "MSE (PredRNN)": "mse_predrnn",
    "SSIM (PredRNN)": "ssim_predrnn",
    "PSNR (PredRNN)": "psnr_predrnn",
    "SSIM (SimVP)": "ssim_published",
    "PSNR (SimVP)": "psnr_simvp",
}
_FOUR_DIGITS = ("ssim", "lpip")
# The factors by which the field's tables print these data sets.
_TABLE_FACTORS: dict[str, dict[str, float]] = {"taxibj": {"mse": 100}, "human36m": {"mse": 0.1, "mae": 0.01}}
# Table III prints a thousand times the mean over a frame's values, where all others print their sum.
_TABLE_MEANS: dict[str, dict[str, float]] = {"kitticaltech": {"mse": 1000}}


def metrics_table(table: dict[str, Metrics], name: str = "", frame_values: int = 1) -> str:
    """A row for each forecast, scaled as the tables of the data set ``name`` are, then notes.

    Args:
        table: Of each forecast.
        name: Of the data set.
        frame_values: C * H * W, by which the sum over a frame becomes a mean.
    """
    factors, suffixes = _scale(name, frame_values)
    first, lines = max(map(len, table)) + 2, []
    published = any("psnr_simvp" in metrics.means for metrics in table.values())
    for columns in (_COLUMNS, _PUBLISHED) if published else (_COLUMNS,):
        known = {title: key for title, key in columns.items() if all(key in each.means for each in table.values())}
        if columns is _PUBLISHED:
            lines.append("as published code scores:")
        heads = [title + suffixes.get(key, "") for title, key in known.items()]
        width = max(18, *(len(head) + 2 for head in heads))
        lines.append(" " * first + "".join(f"{head:>{width}}" for head in heads))
        for row, metrics in table.items():
            scaled = {key: metrics.means[key] * factors.get(key, 1) for key in known.values()}
            values = (f"{value:>{width}.{4 if key[:4] in _FOUR_DIGITS else 2}f}" for key, value in scaled.items())
            lines.append(f"{row:<{first}}" + "".join(values))
    return "\n".join([*lines, *dict.fromkeys(metrics.note for metrics in table.values() if metrics.note)])


def frames_table(metrics: Metrics, name: str = "", frame_values: int = 1) -> str:
    """A row for each predicted frame, in the units of ``metrics_table``.

    Args:
        metrics: Of one forecast.
        name: Of the data set.
        frame_values: C * H * W, by which the sum over a frame becomes a mean.
    """
    factors, suffixes = _scale(name, frame_values)
    titles = {key: title for title, key in (_PUBLISHED | _COLUMNS).items()}
    known = [key for key in metrics.per_frame if key in titles]
    heads = [titles[key] + suffixes.get(key, "") for key in known]
    width = max(16, *(len(head) + 2 for head in heads))
    lines = ["frame" + "".join(f"{head:>{width}}" for head in heads)]
    for number, row in enumerate(zip(*(metrics.per_frame[key] for key in known), strict=True), start=1):
        scaled = (value * factors.get(key, 1) for key, value in zip(known, row, strict=True))
        lines.append(f"{number:<5}" + "".join(f"{value:>{width}.4f}" for value in scaled))
    return "\n".join(lines)


def _scale(name: str, frame_values: int) -> tuple[dict[str, float], dict[str, str]]:
    """By what a data set's tables multiply each metric, and what its title then says."""
    sums, means = _TABLE_FACTORS.get(name, {}), _TABLE_MEANS.get(name, {})
    factors = sums | {key: factor / frame_values for key, factor in means.items()}
    suffixes = {key: f" x{factor:g}" for key, factor in sums.items()}
    suffixes |= {key: f" x{factor:g} (mean)" for key, factor in means.items()}
    factors |= {key: factors.get(key.partition("_")[0], 1) for key in _PUBLISHED.values()}
    suffixes |= {key: suffixes.get(key.partition("_")[0], "") for key in _PUBLISHED.values()}
    return factors, suffixes
