"""Training in two phases. Needs the extra ``plasm-video[cli]``."""

from plasm.runs import PretrainConfig, TrainConfig, make_config, model_defaults

from .assembly import run
from .signals import RunInterruptedError
from .task import Outputs, Prediction, Pretraining, Task

__all__ = [
    "Outputs",
    "Prediction",
    "PretrainConfig",
    "Pretraining",
    "RunInterruptedError",
    "Task",
    "TrainConfig",
    "make_config",
    "model_defaults",
    "run",
]
