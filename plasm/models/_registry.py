"""The models that timm has registered: their families, arguments, recipes and tasks.

There is no other list of families.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

from plasm.files import listed
from plasm.tasks import Prediction, Task

from ._family import Family
from ._pretrained import published_arguments

_PACKAGE = __package__ or ""


def list_models(pretrained: bool = False) -> list[str]:
    """Names of plasm's models, for ``create_model``; with ``pretrained``, those that have weights, with tags."""
    return [name for name in timm.list_models(pretrained=pretrained) if is_plasm_model(name)]


def families() -> list[Family]:
    """The families of this package, in the order of their models' names."""
    found = {id(family): family for name in list_models() if (family := family_of(name))}
    return list(found.values())


def family_of(name: str) -> Family | None:
    """The family of a model: ``FAMILY`` of the module that its constructor lies in, plasm's or a user's.

    Args:
        name: Of the constructor, with or without a tag.

    Returns:
        None if no such model is registered, or its module has no such record.
    """
    module = inspect.getmodule(timm.models.model_entrypoint(name)) if timm.is_model(name) else None
    family = vars(module).get("FAMILY") if module else None
    return family if isinstance(family, Family) else None


def is_plasm_model(name: str) -> bool:
    """Whether a name, with or without a tag, is that of a model of this package, rather than of timm or a user."""
    return _module_of(name).startswith(f"{_PACKAGE}.")


def is_timm_model(name: str) -> bool:
    """Whether a name, with or without a tag, is that of a model of timm's own."""
    return _module_of(name).startswith("timm.")


def arguments_of(name: str) -> dict[str, Any]:
    """All arguments with which a registered family's model is made by its name; no model is made.

    Args:
        name: Of the constructor, or with a tag that of published weights.

    Raises:
        KeyError: If no family has registered it.
    """
    family, (variant, _, tag) = family_of(name), name.partition(".")
    if family is None or variant not in family.constructors:
        raise KeyError(f"no family has registered {name}")
    published = published_arguments(variant, tag) if tag else {}
    return {**family.constructors[variant].arguments, **published}


def recipe(name: str, command: str) -> Mapping[str, Any]:
    """The hyperparameters that a model's family sets for a phase, by field of its configuration.

    Args:
        name: Of the constructor, with or without a tag.
        command: "pretrain" or "train".
    """
    family = family_of(name)
    return family.recipes.get(name.partition(".")[0], {}).get(command, {}) if family else {}


def create_task(name: str, model: nn.Module, **options: Any) -> Task:
    """The task that trains a model: its family's, with the options of its recipe, or ``Prediction``.

    Args:
        name: Of the constructor, with or without a tag.
        model: What is trained.
        **options: Of the task, over those of the recipe.

    Raises:
        ValueError: If the task has no such option, or the model cannot be trained so.
    """
    family = family_of(name)
    kind = family.task if family else Prediction
    known = inspect.signature(kind).parameters
    if unknown := [option for option in options if option not in known]:
        have = ", ".join(option for option in list(known)[1:] if option != "rollout") or "none"
        raise ValueError(f"the task of {name} has no option {listed(unknown)}; it has: {have}")
    return kind(model, **{**recipe(name, "train").get("task_args", {}), **options})


def _module_of(name: str) -> str:
    return timm.models.model_entrypoint(name).__module__ if timm.is_model(name) else ""
