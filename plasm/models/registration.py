"""Constructors of a family for the five benchmarks: one of each, by the arguments that differ."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from timm.models import register_model

from .family import Family
from .video_model import VideoModel

__all__ = ["BENCHMARKS", "TINY", "TINY_SAMPLING_STOP", "input_sizes", "recipes", "register_benchmarks"]

Model = TypeVar("Model", bound=VideoModel)

BENCHMARKS: dict[str, dict[str, Any]] = {
    "mmnist": {"in_chans": 1, "img_size": (64, 64), "in_frames": 10, "out_frames": 10},
    "taxibj": {"in_chans": 2, "img_size": (32, 32), "in_frames": 4, "out_frames": 4},
    "human36m": {"in_chans": 3, "img_size": (128, 128), "in_frames": 4, "out_frames": 4},
    "caltech": {"in_chans": 3, "img_size": (128, 160), "in_frames": 10, "out_frames": 1},
    "kth": {"in_chans": 1, "img_size": (128, 128), "in_frames": 10, "out_frames": 20},
}
"""The five of the PLA-SM paper's Table I."""

TINY = "mmnist_tiny"
"""Moving MNIST at about 1.05 G multiply-adds a clip, what ``plasm_mmnist_tiny`` costs: the league (docs/league.md)."""

TINY_SAMPLING_STOP = 2400
"""Of the league's 6,000 steps, the share that OpenSTL's 50,000 steps have of its 125,000."""

_SHAPES = {**BENCHMARKS, TINY: BENCHMARKS["mmnist"]}


def register_benchmarks(
    family: Family, model_cls: type[Model], prefix: str, args: Mapping[str, Mapping[str, Any]], module: str
) -> dict[str, Callable[..., Model]]:
    """Register a constructor for each benchmark, ``prefix_benchmark``, as a function of a module.

    Args:
        family: Creates the models.
        model_cls: Their class.
        prefix: What the names start with.
        args: For the name of a benchmark, or ``TINY``, the arguments of the class that the benchmark does not decide.
        module: Name of the module, whose ``default_cfgs`` and ``__all__`` timm reads.

    Returns:
        The constructors by name, for the module's own names.
    """

    def constructor(name: str, defaults: Mapping[str, Any]) -> Callable[..., Model]:
        def create(pretrained: bool = False, **kwargs: Any) -> Model:
            return family.create(model_cls, name, pretrained, defaults, kwargs)

        height, width = defaults["img_size"]
        translator = f" with the translator {defaults['translator']}" if "translator" in defaults else ""
        create.__name__ = create.__qualname__ = name
        create.__module__ = module
        create.__doc__ = (
            f"{model_cls.__name__}{translator}: {height}x{width}, {defaults['in_frames']} -> {defaults['out_frames']} "
            "frames."
        )
        return register_model(create)

    named = {f"{prefix}_{benchmark}": {**_SHAPES[benchmark], **each} for benchmark, each in args.items()}
    return {name: constructor(name, defaults) for name, defaults in named.items()}


def input_sizes(
    *prefixes: str, benchmarks: Sequence[str] = tuple(BENCHMARKS), tiny: Sequence[str] = ()
) -> dict[str, tuple[int, int, int]]:
    """(C, H, W) of the constructors ``prefix_benchmark``, and ``prefix_mmnist_tiny`` for each prefix in ``tiny``."""
    names = [(prefix, name) for prefix in prefixes for name in benchmarks] + [(prefix, TINY) for prefix in tiny]
    return {f"{prefix}_{name}": (_SHAPES[name]["in_chans"], *_SHAPES[name]["img_size"]) for prefix, name in names}


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
    tiny_task_args: Mapping[str, Any] | None = None,
    **train: Any,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Recipes of ``Family`` for the constructors ``prefix_benchmark``: OpenSTL's, but for what is given.

    Args:
        prefix: What their names start with.
        phase_1: Whether they have an encoder to pretrain, as the PLA-SM paper does.
        benchmarks: Which of ``BENCHMARKS``.
        task_args: Options of the family's task, likewise.
        tiny_task_args: Options of the family's task for ``prefix_mmnist_tiny``, which has no other recipe.
        **train: What training is told, ``lr`` among it: a value for all benchmarks, or a mapping with those of some.
    """
    out = {}
    for name in benchmarks:
        told = {"clip_grad": 0.0, **_TRAIN[name], **_of_benchmark(train, name)}
        if task_args:
            told["task_args"] = _of_benchmark(task_args, name)
        out[f"{prefix}_{name}"] = {"train": told, **({"pretrain": _PRETRAIN[name]} if phase_1 else {})}
    if tiny_task_args:
        out[f"{prefix}_{TINY}"] = {"train": {"task_args": dict(tiny_task_args)}}
    return out


def _of_benchmark(told: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Of values for all benchmarks, and mappings with those of some, the values of one."""
    return {
        key: value[name] if isinstance(value, Mapping) else value
        for key, value in told.items()
        if not isinstance(value, Mapping) or name in value
    }
