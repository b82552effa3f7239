"""The five benchmarks that a family has a constructor for, and the hyperparameters of training there.

net_mmnist = FAMILY.register(Net, "net_mmnist", **MMNIST, dim=64)
"""

from collections.abc import Mapping, Sequence
from typing import Any

# Of the PLA-SM paper's Table I.
MMNIST: dict[str, Any] = {"in_chans": 1, "img_size": (64, 64), "in_frames": 10, "out_frames": 10}
TAXIBJ: dict[str, Any] = {"in_chans": 2, "img_size": (32, 32), "in_frames": 4, "out_frames": 4}
HUMAN36M: dict[str, Any] = {"in_chans": 3, "img_size": (128, 128), "in_frames": 4, "out_frames": 4}
CALTECH: dict[str, Any] = {"in_chans": 3, "img_size": (128, 160), "in_frames": 10, "out_frames": 1}
KTH: dict[str, Any] = {"in_chans": 1, "img_size": (128, 128), "in_frames": 10, "out_frames": 20}
BENCHMARKS = {"mmnist": MMNIST, "taxibj": TAXIBJ, "human36m": HUMAN36M, "caltech": CALTECH, "kth": KTH}

TINY = "mmnist_tiny"
"""Moving MNIST at about 1.05 G MACs a clip, what ``plasm_mmnist_tiny`` costs: the league (docs/league.md)."""

_LEAGUE: dict[str, Any] = {
    "optimizer": "muon", "lr": 0.004, "batch_size": 8, "clip_grad": 1.0, "epochs": 10, "clips_per_epoch": 4800,
    "schedule": "wsd", "warmup_steps": 100, "decay_epochs": 2,
}  # fmt: skip
"""How the league's weights were trained; docs/league.md's rules chose Muon for all, and this rate for all but one."""

TINY_SAMPLING_STOP = 2400
"""Of the league's 6,000 steps, the share that OpenSTL's 50,000 steps have of its 125,000."""

SAMPLING: dict[str, Any] = {
    "task_args": {"sampling_stop": 50_000}, "tiny": {"sampling_stop": TINY_SAMPLING_STOP}
}  # fmt: skip
"""Scheduled sampling, for ``recipes``."""

# What OpenSTL (commit c74deb5) gives nearly every model on a benchmark: batches of 16, no clipping of the gradient.
# (Epochs are of the tables of its documentation.) r0 is of the PLA-SM paper's Table I.
_TRAIN: dict[str, dict[str, Any]] = {
    "mmnist": {"epochs": 200},
    "taxibj": {"epochs": 50, "schedule": "cosine", "warmup_epochs": 5, "clips_per_epoch": 19_627},
    "human36m": {"epochs": 50, "schedule": "cosine"},
    "caltech": {"epochs": 100},
    "kth": {"epochs": 100},
}
_PRETRAIN: dict[str, dict[str, Any]] = {
    "mmnist": {"mask_ratio": 0.96},
    "taxibj": {"mask_ratio": 0.97, "clips_per_epoch": 19_627},
    "human36m": {"mask_ratio": 0.95},
    "caltech": {"mask_ratio": 0.95},
    "kth": {"mask_ratio": 0.90},
}


def recipes(
    prefix: str,
    phase_1: bool = False,
    benchmarks: Sequence[str] = tuple(BENCHMARKS),
    task_args: Mapping[str, Any] | None = None,
    tiny: Mapping[str, Any] | None = None,
    **train: Any,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Recipes of ``Family`` for the constructors ``prefix_benchmark``: OpenSTL's, but for what is given.

    Args:
        prefix: What their names start with.
        phase_1: Whether they have an encoder to pretrain, as the PLA-SM paper does.
        benchmarks: Which of ``BENCHMARKS``.
        task_args: Options of the family's task, likewise.
        tiny: Options of the family's task for ``prefix_mmnist_tiny``, whose recipe is the league's; None if there is
            no such constructor.
        **train: Hyperparameters of training, such as ``lr``: a value for all benchmarks, or a mapping by benchmark,
            ``TINY`` among them if it is not the league's.
    """
    out = {}
    for name in benchmarks:
        train_args = {"clip_grad": 0.0, **_TRAIN[name], **_of_benchmark(train, name)}
        if task_args:
            train_args["task_args"] = _of_benchmark(task_args, name)
        out[f"{prefix}_{name}"] = {"train": train_args, **({"pretrain": _PRETRAIN[name]} if phase_1 else {})}
    if tiny is not None:
        own = {key: value[TINY] for key, value in train.items() if isinstance(value, Mapping) and TINY in value}
        out[f"{prefix}_{TINY}"] = {"train": _LEAGUE | own | ({"task_args": dict(tiny)} if tiny else {})}
    return out


def _of_benchmark(train_args: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Of values for all benchmarks, and mappings with those of some, the values of one."""
    return {
        key: value[name] if isinstance(value, Mapping) else value
        for key, value in train_args.items()
        if not isinstance(value, Mapping) or name in value
    }
