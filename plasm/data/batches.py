"""Batches of clips with given indices, loaded in this process or in others."""

import gc
import signal
from collections.abc import Iterable

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

__all__ = ["clip_batches"]


def clip_batches(dataset: Dataset[Tensor], index_batches: list[list[int]], workers: int = 0) -> Iterable[Tensor]:
    """Load the batches with these indices, (B, T + T', C, H, W) each, in this process or in so many workers."""
    batches = _Batches(dataset, index_batches)
    if workers:
        # What nobody needs any more ends here: a decoder of this process that a forked worker collected would wait for
        # threads that the fork has not.
        gc.collect()
    return DataLoader(batches, batch_size=None, num_workers=workers, worker_init_fn=_begin_worker)


class _Batches(Dataset[Tensor]):
    """A data set whose items are whole batches, which ``get_batch`` makes at once where there is one."""

    def __init__(self, dataset: Dataset[Tensor], index_batches: list[list[int]]) -> None:
        self.dataset, self.index_batches = dataset, index_batches

    def __len__(self) -> int:
        return len(self.index_batches)

    def __getitem__(self, number: int) -> Tensor:
        indices, dataset = self.index_batches[number], self.dataset
        if hasattr(dataset, "get_batch"):
            batch: Tensor = dataset.get_batch(indices)
        elif hasattr(dataset, "__getitems__"):
            batch = default_collate(dataset.__getitems__(indices))
        else:
            batch = default_collate([dataset[index] for index in indices])
        return batch


def _begin_worker(worker: int) -> None:
    """Leave alone what came with the fork, and signals.

    A signal to the whole group is for the process that trains, which ends its workers when it has saved.
    """
    gc.freeze()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
