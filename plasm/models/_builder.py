"""Creates models by name."""

import difflib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from plasm import weights
from plasm.files import import_named

from ._family import Family
from ._registry import family_of, is_timm_model, list_models
from ._untrusted import check_count

_SOURCES = ("hf-hub", "local-dir")


def create_model(model_name: str, *args: Any, **kwargs: Any) -> Any:
    """Create a model by name, as ``timm.create_model`` does, with errors that say what to do.

    Three things differ from timm. If the Hub does not answer, there is an error within seconds; timm retries for
    minutes. A damaged config.json is removed from the cache before timm reads it. And timm's own models are not created
    from the Hub or from a folder, because their arguments and files are not checked: use ``timm.create_model``.

    Args:
        model_name: Name of a constructor; "MODULE:NAME", where importing MODULE registers NAME with timm;
            "hf-hub:OWNER/NAME"; or "local-dir:FOLDER".
        *args: As for ``timm.create_model``: first ``pretrained``.
        **kwargs: Arguments of the constructor, and timm's own.

    Raises:
        ImportError: If there is no such module.
        ConnectionError: If the Hub does not answer, and the cache has no such model.
        plasm.weights.WeightsNotFoundError: If there are no such weights, or the Hub has no such model.
        OSError: If a file of weights is damaged or cannot be had.
        ValueError: If there is no such model or it has no such argument, or a config.json is not the configuration of a
            model of plasm or of the user.
    """
    source, _, name = model_name.rpartition(":")
    if model_name.startswith(tuple(f"{each}:" for each in _SOURCES)):
        return _create_from(model_name, *args, **kwargs)
    if source:
        import_named(source)
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, list_models(), n=5)
        meant = f"do you mean {', '.join(near)}? " if near else ""
        raise ValueError(
            f"no model is called {model_name!r}; {meant}`plasm list` names plasm's, timm.list_models() all"
        )
    try:
        model = timm.create_model(name, *args, **kwargs)
    except TypeError as error:
        raise ValueError(_not_taken(model_name, name, error)) from error
    return _complete(model, family_of(name))


def _create_from(model_name: str, *args: Any, **kwargs: Any) -> Any:
    """Create a model from the Hub or from a folder."""
    source, _, name = model_name.partition(":")
    if source == "hf-hub":
        architecture = weights.fetch_config(name, kwargs.get("cache_dir"))["architecture"]
    else:
        architecture = weights.read_model_config(Path(name) / "config.json")["architecture"]
    if is_timm_model(architecture):
        raise ValueError(f"{model_name} holds a {architecture}, which is timm's and no model of plasm")
    try:
        return timm.create_model(model_name, *args, **kwargs)
    except TypeError as error:
        raise ValueError(_not_taken(model_name, architecture, error)) from error


def _complete(model: nn.Module, family: Family | None) -> nn.Module:
    """Set what timm reads of every model, and the paper for the model card, where a user's model lacks them."""
    # There are no classes, and timm needs no number of features.
    for name, value in {"num_classes": 0, "num_features": 0, "paper": family and family.paper}.items():
        if value is not None and not hasattr(model, name):
            setattr(model, name, value)
    return model


def check_buildable(model_name: str, args: Mapping[str, Any], what: str) -> None:
    """Refuse untrusted arguments of a model that is too large for any machine, before it is created.

    Args:
        model_name: Of a constructor, or "MODULE:NAME".
        args: Arguments of the constructor.
        what: What the error calls it.

    Raises:
        ValueError: If it is too large, or there is no such model.
    """
    with torch.device("meta"):
        check_count(create_model(model_name, **args), what)


def _not_taken(model_name: str, name: str, error: TypeError) -> str:
    """Explain a constructor's TypeError: which argument is missing or unknown."""
    unexpected = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if not unexpected:
        return f"{model_name} was given what it does not take: {error}"
    try:
        with torch.device("meta"):
            known = list(inspect.signature(type(timm.create_model(name))).parameters)
    except Exception:
        # A user's constructor may raise anything; then the error names the argument alone.
        known = []
    near = difflib.get_close_matches(unexpected[1], known, n=3, cutoff=0.5)
    meant = f"; do you mean {', '.join(near)}?" if near else ""
    has = f" It has: {', '.join(known)}" if known else ""
    return f"{model_name} was given what it does not take: it has no argument {unexpected[1]}{meant or '.'}{has}"
