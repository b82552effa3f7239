"""Training in two phases. Needs the extra ``plasm-video[cli]``."""

from plasm.runs import PretrainConfig, TrainConfig, create_config, model_defaults

from .assembly import run
from .signals import RunInterruptedError
from .trainer import Trainer

__all__ = [
    "PretrainConfig",
    "RunInterruptedError",
    "TrainConfig",
    "Trainer",
    "create_config",
    "model_defaults",
    "run",
]
