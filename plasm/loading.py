"""Models by name, with weights or without: of this package, of timm, of a user's module, and of training runs.

A training run is a folder that timm reads as "local-dir:RUN".
"""

import difflib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

import plasm
from plasm import weights
from plasm.data.extras import import_named
from plasm.exporting import is_exported, load_exported
from plasm.models import arguments_of, is_plasm_model, is_timm_model
from plasm.models.pretrained import check_count, check_sizes
from plasm.tasks import frame_counts

__all__ = [
    "frame_counts",
    "initial_arguments",
    "is_here",
    "is_pretraining",
    "is_public",
    "load_initial_weights",
    "load_model",
    "make_model",
    "read_run_config",
]


def make_model(name: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """``timm.create_model``, with errors a user can act on.

    Args:
        name: Of timm's registry; or "MODULE:NAME", for one that importing MODULE registers there.
        pretrained: Load the published weights.
        kwargs: For the constructor.

    Raises:
        ValueError: If there is no such model, or it has no such argument.
        ImportError: If there is no such module.
    """
    module, _, short = name.rpartition(":")
    if module:
        import_named(module)
    if not timm.is_model(short):
        near = difflib.get_close_matches(short, plasm.list_models(), n=5)
        meant = f"do you mean {', '.join(near)}? " if near else ""
        raise ValueError(f"no model is called {name!r}; {meant}`plasm list` names plasm's, timm.list_models() all")
    try:
        model: nn.Module = timm.create_model(short, pretrained=pretrained, **kwargs)
    except TypeError as error:
        raise ValueError(_not_taken(name, short, error)) from error
    for attribute in ("num_classes", "num_features"):
        # timm asks for them when it describes a model; to a user's model of clips they mean nothing.
        if not hasattr(model, attribute):
            setattr(model, attribute, 0)
    return model


def _not_taken(name: str, short: str, error: TypeError) -> str:
    """Of a constructor's error, what the user can mend: which argument it lacks, and which it has in its place."""
    unexpected = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if not unexpected:
        return f"{name} was given what it does not take: {error}"
    try:
        with torch.device("meta"):
            known = list(inspect.signature(type(timm.create_model(short))).parameters)
    except Exception:
        # A user's model may do anything when it is built; the name alone is said then.
        known = []
    near = difflib.get_close_matches(unexpected[1], known, n=3, cutoff=0.5)
    meant = f"; do you mean {', '.join(near)}?" if near else ""
    has = f" It has: {', '.join(known)}" if known else ""
    return f"{name} was given what it does not take: it has no argument {unexpected[1]}{meant or '.'}{has}"


def read_run_config(run: Path) -> dict[str, Any]:
    """Read ``config.json`` of a run.

    Raises:
        FileNotFoundError: If the folder holds no run.
        ValueError: If the file is not the configuration of a model.
    """
    file = run / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{run} is not a run: it holds no config.json")
    return weights.read_model_config(file)


def is_pretraining(run: Path) -> bool:
    """Whether a run is of phase 1.

    Raises:
        FileNotFoundError: If the folder holds no run.
        ValueError: If the run's config.json is damaged.
    """
    return read_run_config(run).get("phase") == "pretraining"


def load_initial_weights(model: nn.Module, name: str, source: str, **kwargs: Any) -> None:
    """Give a model the weights to begin with: encoder and decoder of a run of phase 1, strictly, or whole ones.

    The Spatial Masking of phase 1 is dropped (Section IV-B). Whole weights are adapted to other channels and frame
    counts as ``timm.create_model(pretrained=True)`` does.

    Args:
        model: What is given the weights.
        name: Its constructor.
        source: Folder of a run of phase 1, or as for ``load_model``.
        **kwargs: Arguments of the constructor that ``model`` was made with.

    Raises:
        OSError: If there is no such folder or file, it is damaged, or cannot be had.
        ValueError: If the weights do not fit, or the model computes something else with them than their own.
        plasm.weights.WeightsNotFoundError: If no such weights are published.
    """
    is_here(source)
    run = Path(source)
    if run.is_dir() and is_pretraining(run):
        _load_parts(model, run)
    else:
        _load_whole(model, name, source, kwargs)


def initial_arguments(name: str, source: str) -> dict[str, Any]:
    """The arguments in which the model of whole weights to begin with differs from what its constructor makes.

    Args:
        name: Constructor of the model that is to begin with them.
        source: As for ``load_initial_weights``. A phase-1 run, a file, and what is no model of plasm have none.

    Raises:
        OSError: If the weights are damaged, or cannot be had.
        ValueError: If a config.json is damaged.
        plasm.weights.WeightsNotFoundError: If no such weights are published.
    """
    is_here(source)
    path = Path(source)
    if source.startswith("hf-hub:"):
        architecture = weights.fetch_config(source.removeprefix("hf-hub:"))["architecture"]
    elif path.is_dir() and not is_pretraining(path):
        architecture, source = read_run_config(path)["architecture"], f"local-dir:{path}"
    elif is_public(source) and not path.exists():
        model, _, tag = source.partition(".")
        return weights.entry(model, tag).model_args
    else:
        return {}
    if not is_plasm_model(architecture) or architecture != name.rpartition(":")[2]:
        return {}
    return _changed(arguments_of(source), arguments_of(architecture))


def _changed(args: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a model's arguments in which it differs from another; what is timm's own is none of the model's."""
    return {key: value for key, value in args.items() if key in others and _frozen(value) != _frozen(others[key])}


def _frozen(value: Any) -> Any:
    """A value as it was before JSON, which knows no tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _load_parts(model: nn.Module, run: Path) -> None:
    found = weights.shown(read_run_config(run)["architecture"])
    tensors, _ = weights.load_folder(run)
    for part_name in ("encoder", "decoder"):
        prefix = f"{part_name}."
        part = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        module = model.get_submodule(part_name)
        weights.check_tensors(part, module.state_dict(), f"the {part_name} of {run} (a {found})")
        module.load_state_dict(part)


def _load_whole(model: Any, name: str, source: str, kwargs: dict[str, Any]) -> None:
    ours = is_plasm_model(name)
    if ours:
        kwargs = {**kwargs, **{key: getattr(model, key) for key in ("in_chans", "in_frames", "out_frames")}}
    other: Any = load_model(name, source, **kwargs)
    theirs, own = (getattr(net, "_model_args", {}) for net in (other, model))
    different = ", ".join(f"--model-arg {key}={value}" for key, value in _changed(theirs, own).items())
    try:
        weights.check_tensors(other.state_dict(), model.state_dict(), source)
    except ValueError as error:
        if not (ours and different):
            raise
        raise ValueError(f"{error}; {source} was made with other arguments: {different}") from error
    if ours and different:
        raise ValueError(f"{source} was made with other arguments, which no tensor shows; its own are: {different}")
    model.load_state_dict(other.state_dict())


def load_model(name: str | None, source: str | None, *, trust: bool = False, **kwargs: Any) -> nn.Module:
    """Make a model with weights.

    Args:
        name: Constructor. May be left out where ``source`` is a folder, or a name of timm's or of published weights.
        source: Folder of a run or of ``weights.save_pretrained``; "hf-hub:OWNER/NAME"; name of published weights
            (MODEL or MODEL.TAG); a safetensors file for ``name``; what ``plasm.export`` wrote; None for the published
            weights of ``name``.
        trust: Run an exported file of any origin; see ``plasm.exporting.load_exported``.
        **kwargs: Arguments of the constructor, where they are others than those of the weights.

    Raises:
        OSError: If there is no such folder or file, it is damaged, or cannot be had.
        ValueError: If the weights are of another model, of phase 1 alone, or do not fit, or a file is not trusted.
        plasm.weights.WeightsNotFoundError: If the model has no published weights, or the Hub no such repository.
    """
    if source is None:
        if name is None:
            raise ValueError("name a model, weights, or both")
        return make_model(name, pretrained=True, **kwargs)
    is_here(source)
    path = Path(source)
    if is_exported(path):
        return load_exported(path, trust=trust)
    if source.startswith("hf-hub:"):
        architecture = weights.fetch_config(source.removeprefix("hf-hub:"))["architecture"]
        if not is_plasm_model(architecture):
            # What timm opens for its own models may be a pickle.
            raise ValueError(f"{source} holds a {weights.shown(architecture)}, which is no model of plasm")
        _check_name(name, architecture, source)
        model: nn.Module = plasm.create_model(source, pretrained=True, **kwargs)
        return model
    if path.is_dir():
        config = read_run_config(path)
        _check_name(name, config["architecture"], source)
        if is_pretraining(path):
            raise ValueError(f"{path} is a run of phase 1 and predicts nothing: give it to `plasm train --init`")
        if is_plasm_model(config["architecture"]):
            return timm.create_model(f"local-dir:{path}", pretrained=True, **kwargs)
        return _load_other(name, config, path, kwargs)
    if is_public(source) and not path.exists():
        _check_name(name, source.partition(".")[0], source)
        return make_model(source, pretrained=True, **kwargs)
    if path.suffix != ".safetensors" or not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there, or not a .safetensors file; wanted one, a run's folder, hf-hub:OWNER/NAME, or of "
            f"the published: {', '.join(row.name for row in weights.entries())}"
        )
    if name is None:
        raise ValueError(f"{path} is not a folder with a config.json: name the model, too")
    return make_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, **kwargs)


def is_here(source: str) -> bool:
    """Whether weights are a file or folder of this machine, rather than a name.

    Raises:
        ValueError: If they are both: a name of published weights, and something here of that name.
    """
    model, _, tag = source.partition(".")
    here, tags = Path(source).exists(), weights.tags(model)
    if here and tags and (not tag or tag in tags):
        raise ValueError(
            f"{source} names published weights, and {Path(source).absolute()} lies here: give ./{source} for what lies "
            f"here; for the published weights, rename it or go to another folder"
        )
    return here


def is_public(source: str) -> bool:
    """Whether weights are named as they are named on every machine."""
    named = is_plasm_model(source) and not source.endswith(".safetensors")
    return named or source.startswith("hf-hub:")


def _load_other(name: str | None, config: dict[str, Any], run: Path, kwargs: dict[str, Any]) -> nn.Module:
    """A run of a model that is not plasm's, but one that the user has registered."""
    architecture = config["architecture"]
    if is_timm_model(architecture):
        raise ValueError(f"{run} holds a {architecture}, which is timm's and no model of plasm")
    if name is None and not timm.is_model(architecture):
        raise ValueError(
            f"{run} holds a {weights.shown(architecture)}, which is no model of plasm: name it as MODULE:NAME"
        )
    tensors, file = weights.load_folder(run)
    name, what = name or architecture, f"{run / 'config.json'}"
    check_sizes(config.get("model_args", {}), {}, what)
    arguments = {**config.get("model_args", {}), **kwargs}
    empty = _empty(name, arguments)
    if empty is not None:
        check_count(empty, what)
        weights.check_tensors(tensors, empty.state_dict(), str(file))
    try:
        model = make_model(name, **arguments)
    except Exception as error:
        # Arguments of any type may be in it, and constructors trip over them in as many ways.
        raise ValueError(f"{what} describes no {name}: {weights.shown(error)}") from error
    weights.check_tensors(tensors, model.state_dict(), str(file))
    model.load_state_dict(tensors)
    return model


def _empty(name: str, arguments: dict[str, Any]) -> nn.Module | None:
    """A model without memory, or None if it cannot be made so: what is wrong with it shows when it is made."""
    try:
        with torch.device("meta"):
            return make_model(name, **arguments)
    except Exception:
        return None


def _check_name(name: str | None, found: str, where: str) -> None:
    if name is not None and name.rpartition(":")[2].partition(".")[0] != found:
        raise ValueError(f"{where} holds a {weights.shown(found)}, not a {name}")
