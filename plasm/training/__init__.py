"""Training in two phases, and evaluation. Needs the extra ``plasm[cli]``."""

from .config import PretrainConfig, TrainConfig, model_defaults
from .evaluation import TRIVIAL_FORECASTS, evaluate
from .runs import load_model
from .trainer import run

__all__ = ["TRIVIAL_FORECASTS", "PretrainConfig", "TrainConfig", "evaluate", "load_model", "model_defaults", "run"]
