"""Several processes that train or measure one model, started by torchrun: each takes its part of the clips.

One process without torchrun is a group of one, for which everything here does nothing.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["SINGLE_PROCESS", "LostProcessError", "ProcessGroup", "init_process_group"]

_PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others, which may be decoding a data set; one that died is noticed at once."""

# In errors of communication.
_LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
_CURE = "start several processes with torchrun, which sets it, or unset WORLD_SIZE for one process"


class LostProcessError(RuntimeError):
    """Another process of the run has gone."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run.

    Attributes:
        rank: Number of this process.
        size: How many there are.
        device: Where this one computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def part(self, items: list[int]) -> list[int]:
        """This process's part of ``items``: each item belongs to exactly one process."""
        return items[self.rank :: self.size]

    def barrier(self) -> None:
        """Wait until every process has come here."""
        self.sum(torch.zeros(()))

    def sum(self, values: Tensor) -> Tensor:
        """Sum ``values``, on any device, over the processes."""
        if self.size == 1:
            return values
        # NCCL sums what lies on its GPU only.
        there = values.to(self.device, copy=True)
        dist.all_reduce(there)
        return there.to(values.device)

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors, where this process computes, with those of the first process."""
        if self.size == 1:
            return
        for tensor in tensors:
            there = tensor.detach().to(self.device).contiguous()
            dist.broadcast(there, 0)
            tensor.detach().copy_(there)


SINGLE_PROCESS = ProcessGroup(0, 1, torch.device("cpu"))
"""One process, on the CPU."""


@contextmanager
def init_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Initialise the process group of torchrun, if that started this process, and destroy it at the end.

    Args:
        device: Where to compute; "cuda" is the GPU of this process's number on its machine.

    Raises:
        LostProcessError: If another process goes in the meantime.
        ConnectionError: If the processes do not meet.
        ValueError: If a machine has fewer GPUs than processes, or the environment is not what torchrun makes it.
    """
    size = _number("WORLD_SIZE", "1", at_least=1)
    if size == 1:
        yield ProcessGroup(0, 1, device)
        return
    rank, local = _number("RANK", None, below=size), _number("LOCAL_RANK", "0")
    _number("MASTER_PORT", None, below=2**16)
    if not os.environ.get("MASTER_ADDR"):
        raise ValueError(f"the environment variable MASTER_ADDR is not set; {_CURE}")
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}; start torchrun "
                "with --nproc-per-node no greater"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ConnectionError(
            f"process {rank} of {size} did not meet the others at {where}, which MASTER_ADDR and MASTER_PORT name: "
            f"{str(error).splitlines()[0]}"
        ) from error
    try:
        yield ProcessGroup(rank, size, device)
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or any(words in str(error) for words in _LOST):
            raise LostProcessError(
                f"process {rank} of {size} lost another one: {str(error).splitlines()[0]}. See what that one printed; "
                "the same command with --resume goes on from the last checkpoint"
            ) from error
        raise
    finally:
        dist.destroy_process_group()


def _number(name: str, default: str | None, at_least: int = 0, below: int | None = None) -> int:
    """An environment variable of torchrun's.

    Raises:
        ValueError: If it is not set and has no default, or is no such number.
    """
    value = os.environ.get(name, default)
    if value is None:
        raise ValueError(f"the environment variable {name} is not set, though WORLD_SIZE is; {_CURE}")
    if not value.isdecimal() or int(value) < at_least or (below is not None and int(value) >= below):
        most = "" if below is None else f" and below {below}"
        raise ValueError(
            f"the environment variable {name} is a whole number of at least {at_least}{most}, got {value!r}; {_CURE}"
        )
    return int(value)
