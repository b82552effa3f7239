"""Seconds and bytes of steps.

All steps of a call are timed in turn, round after round, so that whatever else the machine does meets all of them; a
large matrix product is timed with them, and what they reach of it does not depend on how busy the machine was.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

Step = Callable[[], Any]


def peak_memory(run: Step, device: torch.device) -> int:
    """Peak of the bytes that torch's allocator hands out during one run, temporaries included.

    On a CPU it is added up from the profiler's record of every allocation; scratch space inside oneDNN and the BLAS is
    not seen.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    # Its log would stand in the middle of the table.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    results: Any = profiler.profiler.kineto_results
    now = peak = 0
    for event in sorted((e for e in results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def matrix_product(device: torch.device, dtype: torch.dtype) -> tuple[Step, int]:
    """A large matrix product, whose speed stands for the peak, and its floating point operations."""
    size, repeats = (1024, 20) if device.type == "cpu" else (8192, 20)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def run() -> None:
        for _ in range(repeats):
            torch.mm(a, b)

    return run, 2 * size**3 * repeats


def in_turn(steps: Sequence[tuple[int, Step]], rounds: int, device: torch.device) -> list[list[float]]:
    """Seconds of each step, with its number of threads, in each round; one more round before warms up."""
    seconds: list[list[float]] = [[] for _ in steps]
    for number in range(rounds + 1):
        for (threads, step), taken in zip(steps, seconds, strict=True):
            torch.set_num_threads(threads)
            started = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number:
                taken.append(time.perf_counter() - started)
    return seconds
