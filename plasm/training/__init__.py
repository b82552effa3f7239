"""Training in two phases. Needs the extra ``plasm-video[cli]``."""

from plasm.runs import PretrainConfig, TrainConfig, make_config, model_defaults

from .assembly import run
from .signals import RunInterruptedError
from .trainer import Trainer

__all__ = [
    "PretrainConfig",
    "RunInterruptedError",
    "TrainConfig",
    "Trainer",
    "make_config",
    "model_defaults",
    "run",
]
