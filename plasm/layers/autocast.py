"""Arithmetic that keeps its precision under autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["without_autocast"]


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which what is computed on the device of ``x`` is not cast; "meta" has no autocast to switch off."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if _is_available(kind) else nullcontext()


@torch.compiler.assume_constant_result  # torch before 2.7 cannot trace the question
def _is_available(kind: str) -> bool:
    return torch.amp.is_autocast_available(kind)
