"""Forecasts of models, and baselines, which need no model.

Shapes: B clips, T input frames, T' output frames, C channels, H x W pixels.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from plasm.models import ModelInterface, forecasting

Forecast = Callable[[Tensor, int], Tensor]


def predict_black(clip: Tensor, num_frames: int) -> Tensor:
    """(B, T, C, H, W) -> (B, num_frames, C, H, W) of zeros."""
    return torch.zeros_like(clip[:, :1]).expand(-1, num_frames, -1, -1, -1)


def repeat_last_frame(clip: Tensor, num_frames: int) -> Tensor:
    """(B, T, C, H, W) -> (B, num_frames, C, H, W), each the last of the T."""
    return clip[:, -1:].expand(-1, num_frames, -1, -1, -1)


BASELINES: dict[str, Forecast] = {"black": predict_black, "last frame": repeat_last_frame}


def forecast(model: nn.Module) -> Forecast:
    """A model as a forecast of any number of frames, in eval mode and without gradient; its own mode is restored.

    A model without ``predict(clip, num_frames)`` forecasts its T' frames or fewer; more are a ValueError.
    """

    def predict(clip: Tensor, num_frames: int) -> Tensor:
        with forecasting(model):
            if own := ModelInterface.of(model).predict:
                return own(clip, num_frames)
            frames: Tensor = model(clip)
        if frames.shape[1] < num_frames:
            raise ValueError(
                f"{type(model).__name__} gives {frames.shape[1]} frames and has no predict(clip, num_frames) for "
                f"{num_frames}"
            )
        return frames[:, :num_frames]

    return predict


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
