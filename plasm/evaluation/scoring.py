"""Measuring forecasts on a data set.

Shapes: B clips, T input frames, T' output frames, C channels, H x W pixels.
"""

from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from plasm.data import clip_batches
from plasm.distributed import SINGLE_PROCESS, ProcessGroup
from plasm.models import forecasting

from .forecasts import Forecast
from .metrics import Metrics, VideoMetrics


def evaluate(
    forecasts: dict[str, Forecast],
    dataset: Dataset[Tensor],
    in_frames: int,
    out_frames: int,
    *,
    num_clips: int | None = None,
    batch_size: int = 10,
    group: ProcessGroup = SINGLE_PROCESS,
    workers: int = 0,
    ssim: bool = True,
    published: bool = False,
    lpips: nn.Module | None = None,
) -> dict[str, Metrics]:
    """Measure forecasts on the same clips, each clip in one process.

    Args:
        forecasts: Each maps (B, T, C, H, W) and T' to (B, T', C, H, W), like ``model.predict``.
        dataset: Clips of at least T + T' frames.
        in_frames: T.
        out_frames: T'.
        num_clips: Number of clips to use, from the first; all by default.
        batch_size: B.
        group: The processes that measure together, and where the forecasts compute; by default this one, on the CPU.
        workers: Loader processes per process; 0 loads clips in the process itself.
        ssim: Compute the SSIMs.
        published: Add the scores that published code computes otherwise; see ``published_scores``.
        lpips: Net of ``load_lpips``, for LPIPS too.

    Returns:
        The metrics of each forecast, over the clips of all processes.

    Raises:
        ValueError: If there are fewer clips than processes.
    """
    total = len(dataset) if num_clips is None else min(num_clips, len(dataset))  # type: ignore[arg-type]
    if total < group.size:
        raise ValueError(f"{total} clips are too few for {group.size} processes")
    index = group.part(list(range(total)))
    batches = [index[i : i + batch_size] for i in range(0, len(index), batch_size)]
    metrics = {name: VideoMetrics(ssim, published, lpips) for name in forecasts}
    quiet = None if group.is_first else True
    # A model's own predict, given as it is, leaves the model's mode to us.
    models = [owner for f in forecasts.values() if isinstance(owner := getattr(f, "__self__", f), nn.Module)]
    with (
        forecasting(*models),
        tqdm(total=len(index), desc="evaluate", unit="clip", leave=False, disable=quiet) as progress,
    ):
        for clips in clip_batches(dataset, batches, workers):
            clips = clips.to(group.device)
            clip, target = clips[:, :in_frames], clips[:, in_frames : in_frames + out_frames]
            for name, forecast in forecasts.items():
                metrics[name].update(forecast(clip, out_frames), target)
            progress.update(len(clips))
    for metric in metrics.values():
        metric.add_up(group.sum)
    return {name: metric.compute() for name, metric in metrics.items()}
