"""Arithmetic that keeps its precision under autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which what is computed on the device of ``x`` is not cast; "meta" has no autocast to switch off."""
    kind = x.device.type
    # Nothing where nothing is cast: torch 2.6 cannot store a graph that switches autocast off.
    cast = _has_autocast(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if cast else nullcontext()


@torch.compiler.assume_constant_result  # torch 2.6 cannot trace the question
def _has_autocast(kind: str) -> bool:
    return torch.amp.is_autocast_available(kind)
