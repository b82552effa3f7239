"""Makes models by name."""

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
    """``timm.create_model``, which knows every model of plasm as well, with errors that a user can act on.

    A Hub that does not answer for "hf-hub:OWNER/NAME" is an error within seconds, where timm asks on and on; a
    config.json that came damaged is removed from the cache before timm reads it; and of the Hub and of folders, no
    model of timm's own is made, whose arguments and files nothing checks: ``timm.create_model`` makes those.

    Args:
        model_name: Of a constructor; "MODULE:NAME", for one that importing MODULE registers with timm;
            "hf-hub:OWNER/NAME", or "local-dir:FOLDER".
        *args: As of ``timm.create_model``: first ``pretrained``.
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
    """A model of the Hub or of a folder."""
    source, _, name = model_name.partition(":")
    if source == "hf-hub":
        architecture = weights.fetch_config(name, kwargs.get("cache_dir"))["architecture"]
    else:
        architecture = weights.read_model_config(Path(name) / "config.json")["architecture"]
    if is_timm_model(architecture):
        raise ValueError(f"{model_name} holds a {architecture}, which is timm's and no model of plasm")
    return timm.create_model(model_name, *args, **kwargs)


def _complete(model: nn.Module, family: Family | None) -> nn.Module:
    """Add what timm expects of every model to a user's, and the paper of its family for the model card."""
    # To a model of clips, what timm asks for means nothing.
    for name, value in {"num_classes": 0, "num_features": 0, "paper": family and family.paper}.items():
        if value is not None and not hasattr(model, name):
            setattr(model, name, value)
    return model


def check_buildable(model_name: str, args: Mapping[str, Any], what: str) -> None:
    """Refuse arguments of unknown origin that make a model too large for any machine, before it is made.

    Args:
        model_name: Of a constructor, or "MODULE:NAME".
        args: For the constructor.
        what: Of what the error speaks.

    Raises:
        ValueError: If they do, or make none.
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
        # A user's model may do anything when it is built; the name alone is said then.
        known = []
    near = difflib.get_close_matches(unexpected[1], known, n=3, cutoff=0.5)
    meant = f"; do you mean {', '.join(near)}?" if near else ""
    has = f" It has: {', '.join(known)}" if known else ""
    return f"{model_name} was given what it does not take: it has no argument {unexpected[1]}{meant or '.'}{has}"
