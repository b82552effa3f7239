"""Measuring forecasts on a data set, beside the two that need no model.

Shapes: B clips, T input frames, T' output frames, C channels, H x W pixels.
"""

import gc
import signal
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from plasm.metrics import Metrics, VideoMetrics

from .distributed import ALONE, World

__all__ = [
    "TRIVIAL_FORECASTS",
    "Forecast",
    "TimedForecast",
    "clip_batches",
    "evaluate",
    "forecast",
    "predict_black",
    "repeat_last_frame",
]

Forecast = Callable[[Tensor, int], Tensor]


def predict_black(clip: Tensor, num_frames: int) -> Tensor:
    """(B, T, C, H, W) -> (B, num_frames, C, H, W) of zeros."""
    return torch.zeros_like(clip[:, :1]).expand(-1, num_frames, -1, -1, -1)


def repeat_last_frame(clip: Tensor, num_frames: int) -> Tensor:
    """(B, T, C, H, W) -> (B, num_frames, C, H, W), each the last of the T."""
    return clip[:, -1:].expand(-1, num_frames, -1, -1, -1)


TRIVIAL_FORECASTS: dict[str, Forecast] = {"black": predict_black, "last frame": repeat_last_frame}


def forecast(model: nn.Module) -> Forecast:
    """A model as a forecast of any number of frames, in eval mode and without gradient.

    A model without ``predict(clip, num_frames)`` forecasts its T' frames or fewer; more are a ValueError.
    """
    if hasattr(model, "predict"):
        predict: Forecast = model.predict  # type: ignore[assignment]
        return predict

    @torch.no_grad()
    def cut(clip: Tensor, num_frames: int) -> Tensor:
        frames: Tensor = model(clip)
        if frames.shape[1] < num_frames:
            raise ValueError(
                f"{type(model).__name__} gives {frames.shape[1]} frames and has no predict(clip, num_frames) for "
                f"{num_frames}"
            )
        return frames[:, :num_frames]

    return cut


class TimedForecast:
    """A forecast that measures its speed: not the loading of clips, nor the scoring.

    Args:
        forecast: What to measure.
        device: Where it computes.
    """

    def __init__(self, forecast: Forecast, device: torch.device) -> None:
        self.forecast, self.device = forecast, device
        self._times: list[tuple[int, float]] = []

    def __call__(self, clip: Tensor, num_frames: int) -> Tensor:
        """Forecast; see ``forecast``."""
        self._wait()
        started = time.perf_counter()
        frames = self.forecast(clip, num_frames)
        self._wait()
        self._times.append((frames.shape[0] * frames.shape[1], time.perf_counter() - started))
        return frames

    @property
    def frames_per_second(self) -> float:
        """Predicted frames of all clips a second; without the first batch, which warms up, where there are others."""
        counts, seconds = zip(*(self._times[1:] or self._times), strict=True)
        return float(sum(counts) / sum(seconds))

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


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


def evaluate(
    forecasts: dict[str, Forecast],
    dataset: Dataset[Tensor],
    in_frames: int,
    out_frames: int,
    *,
    num_clips: int | None = None,
    batch_size: int = 10,
    world: World = ALONE,
    workers: int = 0,
    ssim: bool = True,
) -> dict[str, Metrics]:
    """Measure forecasts on the same clips, each clip in one process.

    Args:
        forecasts: Each maps (B, T, C, H, W) and T' to (B, T', C, H, W), like ``model.predict``.
        dataset: Clips of at least T + T' frames.
        in_frames: T.
        out_frames: T'.
        num_clips: Use the first so many clips; all by default.
        batch_size: B.
        world: The processes that measure together, and where the forecasts compute; by default this one, on the CPU.
        workers: Processes that load clips, for each that measures; 0 loads them in that one.
        ssim: Compute both SSIMs.

    Returns:
        The metrics of each forecast, over the clips of all processes.

    Raises:
        ValueError: If there are fewer clips than processes.
    """
    total = len(dataset) if num_clips is None else min(num_clips, len(dataset))  # type: ignore[arg-type]
    if total < world.size:
        raise ValueError(f"{total} clips are too few for {world.size} processes")
    index = world.share(list(range(total)))
    batches = [index[i : i + batch_size] for i in range(0, len(index), batch_size)]
    metrics = {name: VideoMetrics(ssim) for name in forecasts}
    quiet = None if world.is_first else True
    with tqdm(total=len(index), desc="evaluate", unit="clip", leave=False, disable=quiet) as progress:
        for clips in clip_batches(dataset, batches, workers):
            clips = clips.to(world.device)
            clip, target = clips[:, :in_frames], clips[:, in_frames : in_frames + out_frames]
            for name, forecast in forecasts.items():
                metrics[name].update(forecast(clip, out_frames), target)
            progress.update(len(clips))
    for metric in metrics.values():
        metric.add_up(world.sum)
    return {name: metric.compute() for name, metric in metrics.items()}
