"""Choosing an exact ratio of a row of scores, with ties that break by index."""

import math
from fractions import Fraction

import torch
from torch import Tensor


def floor_ratio(ratio: float, count: int) -> int:
    """floor(ratio * count) for the decimal that the user wrote, free of binary rounding.

    ``int(0.29 * 100)`` is 28, because 0.29 is stored a little low; this gives 29. A ratio outside [0, 1] is a
    ValueError.
    """
    if not 0.0 <= ratio <= 1.0:
        raise ValueError(f"a mask ratio lies in [0, 1], got {ratio}")
    return math.floor(Fraction(repr(float(ratio))) * count)


def top_mask(scores: Tensor, count: int) -> Tensor:
    """Mark exactly ``count`` of the highest scores of each row (..., L); among equal scores the lower index goes first.

    Scores have no NaN; the mask is bool, (..., L).
    """
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    # topk alone promises no order among equal scores, and a sort of the whole row costs several times more.
    threshold = scores.topk(count, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    above, tied = scores > threshold, scores == threshold
    vacancies = count - above.sum(-1, keepdim=True)
    return above | (tied & (tied.cumsum(-1) <= vacancies))
