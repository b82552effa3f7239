"""Batches of clips with given indices, loaded in this process or in others."""

import gc
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from plasm.files import UserModules

GREATEST_PIXEL = 10.0
"""Pixels are in [0, 1], and measurements scaled by those of other days not far from it; 255 is no such value."""

# Of these a message is made again in the main process.
_MENDABLE = (FileNotFoundError, PermissionError, OSError, ImportError, MemoryError, ValueError)


def clip_batches(dataset: Dataset[Tensor], index_batches: list[list[int]], workers: int = 0) -> Iterator[Tensor]:
    """Load the batches with these indices, (B, T + T', C, H, W) each, in this process or in so many workers.

    What cannot be read is the same error either way, without the traceback that torch adds to those of a worker.
    """
    return _load(_Batches(dataset, index_batches), workers)


def first_clip(dataset: Dataset[Tensor]) -> Tensor:
    """The first clip of a data set, (T + T', C, H, W), which is looked at for all: a user's may be of any kind.

    Raises:
        ValueError: If it is no tensor of that many dimensions, of other numbers than float32, or far from [0, 1].
    """
    clip: Any = dataset[0]
    wanted = "a clip is a tensor of float32, (T + T', C, H, W), in [0, 1]"
    if not isinstance(clip, Tensor):
        raise ValueError(f"{type(dataset).__name__} gives a {type(clip).__name__}: {wanted}")
    if clip.dtype is not torch.float32 or clip.ndim != 4:
        kind = str(clip.dtype).removeprefix("torch.")
        raise ValueError(f"{type(dataset).__name__} gives {kind} of shape {tuple(clip.shape)}: {wanted}")
    if clip.numel() and (greatest := clip.abs().max().item()) > GREATEST_PIXEL:
        raise ValueError(f"{type(dataset).__name__} gives a clip that reaches {greatest:g}: {wanted}; divide by 255?")
    return clip


def weighed_batches(
    dataset: Dataset[Tensor], index_batches: list[list[int]], workers: int = 0
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Load batches as ``clip_batches`` does, each with the weights of its pixels in a loss, of the same shape.

    A data set gives both by ``get_weighed_batch(indices) -> (clips, weight)``; of others the weights are None.
    """
    if not hasattr(dataset, "get_weighed_batch"):
        return ((clips, None) for clips in clip_batches(dataset, index_batches, workers))
    return _load(_Batches(dataset, index_batches, weighed=True), workers)


def _load(batches: "_Batches", workers: int) -> Iterator[Any]:
    if workers:
        # Free unreachable objects now: a decoder that a forked worker collected would wait for threads that the fork
        # does not have.
        gc.collect()
    loader: Any = iter(DataLoader(batches, batch_size=None, num_workers=workers, worker_init_fn=_begin_worker))
    try:
        while (batch := _next(loader, workers)) is not None:
            if isinstance(batch, _Failure):
                raise batch.kind(batch.message)
            yield batch
    finally:
        # Torch ends the workers when nobody has the loader any more. But an error of it has, as long as it is kept, and
        # workers that ignore signals would keep a process from ending that ends by the error.
        if workers:
            loader._shutdown_workers()


def _next(loader: Iterator[Any], workers: int) -> Any:
    """The next batch; None at the end."""
    try:
        return next(loader, None)
    except (ConnectionError, EOFError, FileNotFoundError) as error:
        # Not of the data set, but of the way to a worker, which died while a batch came from it. Where torch notices
        # first, it says so itself.
        if workers and "in DataLoader worker process" not in str(error):
            raise ChildProcessError(f"the way to a process that loads clips broke: {error!r}") from error
        raise


@dataclass(frozen=True)
class _Failure:
    """An error of a worker that a user can mend."""

    kind: type[Exception]
    message: str


class _Batches(Dataset[Any]):
    """A data set whose items are whole batches, which ``get_batch`` makes at once where there is one."""

    def __init__(self, dataset: Dataset[Tensor], index_batches: list[list[int]], weighed: bool = False) -> None:
        # First, so that a process that unpickles it has imported them: the data set may be of one of them.
        self.modules = UserModules()
        self.dataset, self.index_batches, self.weighed = dataset, index_batches, weighed

    def __len__(self) -> int:
        return len(self.index_batches)

    def __getitem__(self, number: int) -> Any:
        try:
            return self._batch(number)
        except _MENDABLE as error:
            if get_worker_info() is None:
                raise
            return _Failure(next(kind for kind in _MENDABLE if isinstance(error, kind)), str(error))

    def _batch(self, number: int) -> Any:
        indices, dataset = self.index_batches[number], self.dataset
        if self.weighed or hasattr(dataset, "get_batch"):
            return getattr(dataset, "get_weighed_batch" if self.weighed else "get_batch")(indices)
        if hasattr(dataset, "__getitems__"):
            return default_collate(dataset.__getitems__(indices))
        return default_collate([dataset[index] for index in indices])


def _begin_worker(worker: int) -> None:
    """Ignore signals, and exempt the parent's objects from garbage collection.

    The process that trains handles the signals of its group: it saves, and then ends its workers.
    """
    gc.freeze()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
