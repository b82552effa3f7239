"""The device that a model runs on: which one, what it is fast at, how its memory is kept, and that it ran out."""

import ctypes
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from plasm.cpu import speed_up

__all__ = ["choose_device", "clear_failures", "has_bf16", "keep_freed_memory", "move"]


def choose_device(device: str) -> torch.device:
    """A torch device by name; "auto" is a GPU if there is one.

    Raises:
        ValueError: If there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {device!r} here: {str(error).splitlines()[0]}") from error


def move(model: nn.Module, device: torch.device) -> Any:
    """Move a model, with the weights of its 2D convolutions channels last in memory: its features then are, too.

    Up to rounding it computes the same, and on a CPU far faster, where ``plasm.cpu.speed_up`` changes it, too.
    """
    model.to(device)
    if device.type == "cpu":
        speed_up(model)
    for parameter in model.parameters():
        if parameter.ndim == 4:
            # Not contiguous(): it leaves 1x1 and depthwise weights, which lie the same either way, with the strides of
            # the other format, and by those a CPU takes slower kernels.
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return model


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16, rather than imitate it: a CPU without the instructions crawls."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return torch.amp.is_autocast_available(device.type)
    if platform.machine() in ("aarch64", "arm64"):
        return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    # torch has no public name for it. oneDNN's own answer counts AVX-512 without bf16 instructions in.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def keep_freed_memory(device: torch.device) -> None:
    """Let glibc keep large buffers that were freed, for the next step.

    It would hand each activation of some megabytes back to the system, and get it anew page by page.
    """
    if device.type == "cpu" and sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            m_trim_threshold, m_mmap_threshold = -1, -3
            mallopt(m_mmap_threshold, 2**30)
            mallopt(m_trim_threshold, 2**31 - 1)


# What torch says of it, on a CPU, on Windows, and of the libraries of a GPU.
# Of torch, ONNX Runtime and OpenVINO, of which the last two have errors of their own.
_OUT_OF_MEMORY = (
    "can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED", "ailed to allocate memory",
    "bad_alloc", "bad allocation",
)  # fmt: skip


@contextmanager
def clear_failures(remedy: str) -> Iterator[None]:
    """Turn two failures of the machine into errors that say what to do.

    Args:
        remedy: What takes less memory, and what becomes of the work done so far.

    Raises:
        MemoryError: If memory ran out, of the machine or of a GPU.
        ChildProcessError: If a process that loads clips was killed.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
            word in str(error) for word in _OUT_OF_MEMORY
        ):
            raise MemoryError(f"out of memory ({_summary(error)}): {remedy}") from error
        # torch raises the second wherever the process is when its worker dies.
        if isinstance(error, ChildProcessError) or re.search(r"DataLoader worker \(pid", str(error)):
            raise ChildProcessError(
                f"a process that loads clips was killed ({_summary(error)}), by the system if memory ran out; fewer "
                f"--workers may help: {remedy}"
            ) from error
        raise


def _summary(error: BaseException) -> str:
    """The part of torch's message that says how much memory, or which process."""
    text = str(error).strip() or type(error).__name__
    found = re.search(r"Tried to allocate [^.]*\.?\d* ?\w+|you tried to allocate \d+ bytes|[^:\n]*pid[^\n]*", text)
    return (found[0] if found else text.splitlines()[0]).strip(" .")[:200]
