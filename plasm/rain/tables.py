"""Skill scores as a table to read."""

from .scores import RainScores

_THRESHOLDS = (0.1, 1.0, 5.0)
_LEADS = 6


def scores_table(scores: RainScores, minutes: float) -> str:
    """CSI and bias of each method at three thresholds, over at most six lead times, from the first to the last.

    Args:
        scores: Of all methods.
        minutes: From lead time to lead time.
    """
    rows = scores.rows(minutes)
    leads = sorted({row["lead_minutes"] for row in rows})
    count = min(_LEADS, len(leads))
    shown = [leads[number * (len(leads) - 1) // max(1, count - 1)] for number in range(count)]
    lines = [f"{'':<22}{'mm/h':>6}" + "".join(f"{f'{lead:g} min':>9}" for lead in shown)]
    for key, title in (("csi", "CSI"), ("bias", "bias")):
        values = {(row["method"], row["threshold_mm_h"], row["lead_minutes"]): row[key] for row in rows}
        lines += [
            f"{title:<5}{method:<17}{threshold:>6g}"
            + "".join(f"{values[method, threshold, lead]:>9.3f}" for lead in shown)
            for threshold in _THRESHOLDS
            for method in scores.methods
        ]
    return "\n".join(lines)
