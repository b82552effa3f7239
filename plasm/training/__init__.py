"""Training in two phases, and evaluation. Needs the extra ``plasm[cli]``."""

from .assembly import run
from .config import EvaluateConfig, PretrainConfig, TrainConfig, make_config, model_defaults
from .distributed import LostProcessError, join_world
from .evaluation import TRIVIAL_FORECASTS, Forecast, TimedForecast, evaluate, forecast
from .runs import frame_counts, load_model, make_model
from .signals import RunInterruptedError
from .task import Outputs, Prediction, Pretraining, Task

__all__ = [
    "TRIVIAL_FORECASTS",
    "EvaluateConfig",
    "Forecast",
    "LostProcessError",
    "Outputs",
    "Prediction",
    "PretrainConfig",
    "Pretraining",
    "RunInterruptedError",
    "Task",
    "TimedForecast",
    "TrainConfig",
    "evaluate",
    "forecast",
    "frame_counts",
    "join_world",
    "load_model",
    "make_config",
    "make_model",
    "model_defaults",
    "run",
]
