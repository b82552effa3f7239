"""Measuring forecasts: metrics of frames and clips, baselines, a data set's test clips, and tables."""

from .command import EvaluateConfig, Evaluation, run
from .forecasts import BASELINES, Forecast, TimedForecast, forecast
from .frames import frame_mae, frame_mse, frame_psnr, frame_ssim
from .lpips import frame_lpips, load_lpips
from .metrics import Metrics, VideoMetrics
from .published import published_scores
from .scoring import evaluate
from .tables import frames_table, metrics_table

__all__ = [
    "BASELINES",
    "EvaluateConfig",
    "Evaluation",
    "Forecast",
    "Metrics",
    "TimedForecast",
    "VideoMetrics",
    "evaluate",
    "forecast",
    "frame_lpips",
    "frame_mae",
    "frame_mse",
    "frame_psnr",
    "frame_ssim",
    "frames_table",
    "load_lpips",
    "metrics_table",
    "published_scores",
    "run",
]
