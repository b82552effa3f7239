"""Runs as they lie on a disk: its configuration, what it leaves, and what goes from it to others.

Needs the extra ``plasm-video[cli]``.
"""

from .config import PretrainConfig, RunConfig, TrainConfig, config_differences, create_config, model_defaults
from .folder import RunFolder
from .history import freezes_encoder, history_of, read_earlier, read_history, read_recipe
from .lock import lock_folder
from .publishing import export_run, push_run, record_metrics
from .report import write_report

__all__ = [
    "PretrainConfig",
    "RunConfig",
    "RunFolder",
    "TrainConfig",
    "config_differences",
    "create_config",
    "export_run",
    "freezes_encoder",
    "history_of",
    "lock_folder",
    "model_defaults",
    "push_run",
    "read_earlier",
    "read_history",
    "read_recipe",
    "record_metrics",
    "write_report",
]
