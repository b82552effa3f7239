"""Rain as pixels: rates in mm/h to [0, 1] and back, and radar reflectivity to rates."""

import math
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Field = TypeVar("Field", Tensor, np.ndarray)

FLOOR = 0.1
"""The least rate, in mm/h, that counts as rain."""
CAP = 128.0
"""The rate, in mm/h, that becomes 1; more than this is mostly hail."""

_SPAN = math.log1p(CAP / FLOOR)


def normalize(rate: Field) -> Field:
    """Map rain rates to pixels: log(1 + rate / .1) / log(1 + 128 / .1).

    .1 mm/h becomes .097, 1 mm/h .335, 10 mm/h .645, and 128 mm/h (``CAP``) and more 1. Less than .1 mm/h (``FLOOR``)
    and NaN become 0: which cells are missing is for the caller to keep.

    Args:
        rate: mm/h, of any shape.

    Returns:
        float32 in [0, 1], an array of an array and a tensor of a tensor.
    """
    if isinstance(rate, Tensor):
        return _normalize(rate)
    return _normalize(torch.from_numpy(_plain(rate))).numpy()


def denormalize(x: Field) -> Field:
    """Map pixels to rain rates, the inverse of ``normalize``; pixels are clamped to [0, 1] first, and 0 is exactly 0.

    Args:
        x: Pixels, of any shape.

    Returns:
        mm/h, float32, an array of an array and a tensor of a tensor.
    """
    if isinstance(x, Tensor):
        return _denormalize(x)
    return _denormalize(torch.from_numpy(_plain(x))).numpy()


def rain_rate(dbz: np.ndarray, a: float = 200.0, b: float = 1.6) -> np.ndarray:
    """Rain rate of a reflectivity by Z = a R^b; the defaults are Marshall and Palmer's (1948).

    Args:
        dbz: 10 log10 of Z in mm^6 / m^3; NaN stays NaN.
        a: Factor.
        b: Exponent.

    Returns:
        mm/h, float32.
    """
    if not (a > 0 and b > 0 and math.isfinite(a) and math.isfinite(b)):
        raise ValueError(f"Z = a R^b has a and b above 0, got {a:g} and {b:g}")
    rate: np.ndarray = np.power(10.0, (np.asarray(dbz, np.float64) / 10 - math.log10(a)) / b)
    return rate.astype(np.float32)


def _normalize(rate: Tensor) -> Tensor:
    # In its own type, in which .1 is .1; half precision rounds it down.
    floor = torch.tensor(FLOOR, dtype=rate.dtype) if rate.is_floating_point() else FLOOR
    rain = rate >= floor
    pixels = torch.where(rain, rate, torch.zeros_like(rate)).float().clamp_max(CAP)
    return (torch.log1p(pixels / FLOOR) / _SPAN).clamp(0, 1)


def _denormalize(x: Tensor) -> Tensor:
    return (torch.expm1(x.float().clamp(0, 1) * _SPAN) * FLOOR).clamp_max(CAP)


def _plain(values: np.ndarray) -> np.ndarray:
    """An array that torch takes: masked entries as NaN, this machine's byte order, strides above 0."""
    if isinstance(values, np.ma.MaskedArray):
        values = np.ma.filled(values.astype(np.result_type(values.dtype, np.float32)), np.nan)
    array = np.asarray(values)
    if (array.dtype.kind in "u" and array.dtype.itemsize > 1) or (array.dtype.kind == "f" and array.dtype.itemsize > 8):
        array = array.astype(np.float64)
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
