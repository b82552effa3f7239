import pytest
import torch

from plasm import benchmark


def test_peak_memory_counts_what_is_held_at_once() -> None:
    device, megabyte = torch.device("cpu"), 2**18

    def one_after_the_other() -> None:
        for _ in range(3):
            torch.empty(megabyte)

    held = [torch.empty(0)]

    def at_once() -> None:
        held[:] = [torch.empty(megabyte) for _ in range(3)]
        held.clear()

    assert benchmark.peak_memory(one_after_the_other, device) == pytest.approx(2**20, rel=0.01)
    assert benchmark.peak_memory(at_once, device) == pytest.approx(3 * 2**20, rel=0.01)
