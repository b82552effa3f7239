"""Batches of clips with given indices, loaded in this process or in others."""

import gc
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from plasm.files import UserModules

__all__ = ["clip_batches", "weighed_batches"]

# Of these a message is made again in the main process.
_MENDABLE = (FileNotFoundError, PermissionError, OSError, ImportError, MemoryError, ValueError)


def clip_batches(dataset: Dataset[Tensor], index_batches: list[list[int]], workers: int = 0) -> Iterator[Tensor]:
    """Load the batches with these indices, (B, T + T', C, H, W) each, in this process or in so many workers.

    What cannot be read is the same error either way, without the traceback that torch adds to those of a worker.
    """
    return _load(_Batches(dataset, index_batches), workers)


def weighed_batches(
    dataset: Dataset[Tensor], index_batches: list[list[int]], workers: int = 0
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Load batches as ``clip_batches`` does, each with what its pixels weigh in a loss, of the same shape.

    A data set tells it by ``get_weighed_batch(indices) -> (clips, weight)``; of others it is None.
    """
    if not hasattr(dataset, "get_weighed_batch"):
        return ((clips, None) for clips in clip_batches(dataset, index_batches, workers))
    return _load(_WeighedBatches(dataset, index_batches), workers)


def _load(batches: "_Batches", workers: int) -> Iterator[Any]:
    if workers:
        # What nobody needs any more ends here: a decoder of this process that a forked worker collected would wait for
        # threads that the fork has not.
        gc.collect()
    for batch in DataLoader(batches, batch_size=None, num_workers=workers, worker_init_fn=_begin_worker):
        if isinstance(batch, _Failure):
            raise batch.kind(batch.message)
        yield batch


@dataclass(frozen=True)
class _Failure:
    """An error of a worker that a user can mend."""

    kind: type[Exception]
    message: str


class _Batches(Dataset[Any]):
    """A data set whose items are whole batches, which ``get_batch`` makes at once where there is one."""

    def __init__(self, dataset: Dataset[Tensor], index_batches: list[list[int]]) -> None:
        self.dataset, self.index_batches = dataset, index_batches

    def __reduce__(self) -> Any:
        # In the process that gets it, the modules come first, of which the data set may be.
        return _unpickle, (UserModules(), type(self), self.dataset, self.index_batches)

    def __len__(self) -> int:
        return len(self.index_batches)

    def __getitem__(self, number: int) -> "Tensor | _Failure":
        try:
            return self._batch(number)
        except _MENDABLE as error:
            if get_worker_info() is None:
                raise
            return _Failure(next(kind for kind in _MENDABLE if isinstance(error, kind)), str(error))

    def _batch(self, number: int) -> Tensor:
        indices, dataset = self.index_batches[number], self.dataset
        if hasattr(dataset, "get_batch"):
            batch: Tensor = dataset.get_batch(indices)
        elif hasattr(dataset, "__getitems__"):
            batch = default_collate(dataset.__getitems__(indices))
        else:
            batch = default_collate([dataset[index] for index in indices])
        return batch


class _WeighedBatches(_Batches):
    """A data set whose items are batches with their weights."""

    def _batch(self, number: int) -> Any:
        return self.dataset.get_weighed_batch(self.index_batches[number])  # type: ignore[attr-defined]


def _unpickle(
    _: UserModules, kind: type[_Batches], dataset: Dataset[Tensor], index_batches: list[list[int]]
) -> _Batches:
    return kind(dataset, index_batches)


def _begin_worker(worker: int) -> None:
    """Leave alone what came with the fork, and signals.

    A signal to the whole group is for the process that trains, which ends its workers when it has saved.
    """
    gc.freeze()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
