"""Training steps: losses, sampling schedules and the tasks made of them. They do not depend on a model.

A task is given a module and calls it; what else it needs of the module stands in its docstring.
"""

from .losses import absolute_error, decoupling, differential_divergence, mean_squared_error, moment_loss, weigh
from .prediction import DivergencePrediction, Prediction
from .pretraining import Pretraining
from .rain import RainPrediction
from .sampling import FramePrediction, ScheduledSampling, ScheduledSamplingL1, TeacherForcing, sampling_mask
from .task import Losses, Outputs, Task, check_options, frame_counts, total_loss

__all__ = [
    "DivergencePrediction",
    "FramePrediction",
    "Losses",
    "Outputs",
    "Prediction",
    "Pretraining",
    "RainPrediction",
    "ScheduledSampling",
    "ScheduledSamplingL1",
    "Task",
    "TeacherForcing",
    "absolute_error",
    "check_options",
    "decoupling",
    "differential_divergence",
    "frame_counts",
    "mean_squared_error",
    "moment_loss",
    "sampling_mask",
    "total_loss",
    "weigh",
]
