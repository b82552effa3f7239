"""Training in two phases, and evaluation. Needs the extra ``plasm[cli]``."""

from .config import EvaluateConfig, PretrainConfig, TrainConfig, make_config, model_defaults
from .distributed import LostProcessError, join_world
from .evaluation import TRIVIAL_FORECASTS, Forecast, TimedForecast, evaluate, forecast
from .runs import frame_counts, load_model
from .trainer import RunInterruptedError, run

__all__ = [
    "TRIVIAL_FORECASTS",
    "EvaluateConfig",
    "Forecast",
    "LostProcessError",
    "PretrainConfig",
    "RunInterruptedError",
    "TimedForecast",
    "TrainConfig",
    "evaluate",
    "forecast",
    "frame_counts",
    "join_world",
    "load_model",
    "make_config",
    "model_defaults",
    "run",
]
