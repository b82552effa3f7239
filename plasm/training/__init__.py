"""Training in two phases, and evaluation. Needs the extra ``plasm[cli]``."""

from .config import PretrainConfig, TrainConfig, make_config, model_defaults
from .distributed import LostProcessError
from .evaluation import TRIVIAL_FORECASTS, evaluate
from .runs import load_model
from .trainer import RunInterruptedError, run

__all__ = [
    "TRIVIAL_FORECASTS",
    "LostProcessError",
    "PretrainConfig",
    "RunInterruptedError",
    "TrainConfig",
    "evaluate",
    "load_model",
    "make_config",
    "model_defaults",
    "run",
]
