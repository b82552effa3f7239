"""Models with weights: published ones, of a training run, of the Hub, of a file.

A training run is a folder that timm reads as "local-dir:RUN".
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from plasm import weights
from plasm.files import listed, shown

from ._builder import create_model
from ._registry import arguments_of, family_of, is_plasm_model, is_timm_model
from ._untrusted import REMOVED_ARGUMENTS, check_arguments, check_count, check_sizes

_formats: list[tuple[Callable[[Path], bool], Callable[..., Any]]] = []


def add_file_format(is_one: Callable[[Path], bool], load: Callable[..., Any]) -> None:
    """Let ``load_model`` read files of another format, by a loader of a package above this one.

    Args:
        is_one: Whether a path is that of such a file.
        load: Called with the path and ``trust``; see ``load_model``. Gives a model with ``metadata``, of which "model"
            is its name.
    """
    _formats.append((is_one, load))


def read_run_config(run: Path) -> dict[str, Any]:
    """Read ``config.json`` of a run; a FileNotFoundError if there is none, a ValueError if it is no model's."""
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
    stated = _stated_arguments(source)
    if stated is None or name.rpartition(":")[2] != stated[0]:
        return {}
    return _changed(stated[1], arguments_of(stated[0]))


def _stated_arguments(source: str) -> tuple[str, dict[str, Any]] | None:
    """The constructor of weights and all arguments that they were made with, as manifest or config.json state them.

    None where neither does: of a phase-1 run, a file, and what is no model of plasm.
    """
    path, here = Path(source), is_here(source)
    if source.startswith("hf-hub:"):
        config, what = weights.fetch_config(source.removeprefix("hf-hub:")), f"the config.json of {source}"
    elif path.is_dir() and not is_pretraining(path):
        config, what = read_run_config(path), f"{path / 'config.json'}"
    elif is_public(source) and not here:
        row = weights.entry(*source.partition(".")[::2])
        return row.model, {**arguments_of(row.model), **row.model_args}
    else:
        return None
    architecture, family = config["architecture"], family_of(config["architecture"])
    if family is None or not is_plasm_model(architecture):
        return None
    size = config.get("pretrained_cfg", {}).get("input_size")
    channels = {"in_chans": size[0]} if isinstance(size, list) and size else {}
    stated = {key: value for key, value in config.get("model_args", {}).items() if key not in REMOVED_ARGUMENTS}
    args = {**arguments_of(architecture), **channels, **stated}
    check_arguments(family.constructors[architecture].model_cls, args, family.largest, what)
    return architecture, args


def _changed(args: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a model's arguments in which it differs from another; timm's own, which it does not have, are none."""
    return {key: value for key, value in args.items() if key in others and _frozen(value) != _frozen(others[key])}


def _frozen(value: Any) -> Any:
    """A value as it was before JSON, which knows no tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _load_parts(model: nn.Module, run: Path) -> None:
    found = shown(read_run_config(run)["architecture"])
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
        kwargs = {**kwargs, "in_chans": model.in_chans, "in_frames": model.in_frames, "out_frames": model.out_frames}
    other = load_model(name, source, **kwargs)
    stated = _stated_arguments(source) if ours else None
    theirs = {**stated[1], **kwargs} if stated else {}
    different = ", ".join(f"--model-arg {key}={value}" for key, value in _changed(theirs, model._model_args).items())
    try:
        weights.check_tensors(other.state_dict(), model.state_dict(), source)
    except ValueError as error:
        if not different:
            raise
        raise ValueError(f"{error}; {source} was made with other arguments: {different}") from error
    if different:
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
        **kwargs: Arguments of the constructor, where they are others than those of the weights; none for what
            ``plasm.export`` wrote.

    Raises:
        OSError: If there is no such folder or file, it is damaged, or cannot be had.
        ValueError: If the weights are of another model, of phase 1 alone, or do not fit, or a file is not trusted.
        plasm.weights.WeightsNotFoundError: If the model has no published weights, or the Hub no such repository.
    """
    if source is None:
        if name is None:
            raise ValueError("name a model, weights, or both")
        return create_model(name, pretrained=True, **kwargs)
    if name is not None and name != source and "." in name.rpartition(":")[2]:
        raise ValueError(f"{name} is of weights of its own, beside {shown(source)}: give one of them, or no tag")
    is_here(source)
    path = Path(source)
    for is_one, load in _formats:
        if is_one(path):
            if kwargs:
                raise ValueError(
                    f"{source} computes with the arguments it was written with: leave out {listed(kwargs)}"
                )
            model: Any = load(path, trust=trust)
            _check_name(name, model.metadata["model"].partition(".")[0], source)
            return model
    if source.startswith("hf-hub:"):
        architecture = weights.fetch_config(source.removeprefix("hf-hub:"))["architecture"]
        if not is_plasm_model(architecture):
            # What timm opens for its own models may be a pickle.
            raise ValueError(f"{source} holds a {shown(architecture)}, which is no model of plasm")
        _check_name(name, architecture, source)
        return create_model(source, pretrained=True, **kwargs)
    if path.is_dir():
        config = read_run_config(path)
        _check_name(name, config["architecture"], source)
        if is_pretraining(path):
            raise ValueError(f"{path} is a run of phase 1 and predicts nothing: give it to `plasm train --init`")
        if is_plasm_model(config["architecture"]):
            return create_model(f"local-dir:{path}", pretrained=True, **kwargs)
        return _load_other(name, config, path, kwargs)
    if is_public(source) and not path.exists():
        _check_name(name, source.partition(".")[0], source)
        return create_model(source, pretrained=True, **kwargs)
    if path.suffix != ".safetensors" or not path.is_file():
        raise FileNotFoundError(
            f"{shown(source)} is not there, or not a .safetensors file, which `plasm convert` makes of a checkpoint; "
            f"wanted one, a run's folder, hf-hub:OWNER/NAME, or of the published: "
            f"{', '.join(row.name for row in weights.entries())}"
        )
    if name is None:
        raise ValueError(f"{path} is not a folder with a config.json: name the model, too")
    return create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, **kwargs)


def is_here(source: str) -> bool:
    """Whether weights are a file or folder of this machine, rather than a name.

    Raises:
        ValueError: If they are both: a name of published weights, and something here of that name; or if the name is
            empty.
    """
    if not source:
        # A path without a name is the current folder.
        raise ValueError("weights are given by an empty name: give a run, a folder, a file, or a published name")
    model, _, tag = source.partition(".")
    # A link that leads nowhere lies here, too: a disk that is not mounted, say.
    here, tags = os.path.lexists(source), weights.tags(model)
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


def public_name(source: str) -> str:
    """What weights are called where others read it: their name, or of a path, which says nothing there, the last part.

    Where that part could be taken for a name, "./" stands before it.
    """
    if is_public(source) and not is_here(source):
        return source
    name = Path(source).absolute().name
    return f"./{name}" if is_public(name) else name


def _load_other(name: str | None, config: dict[str, Any], run: Path, kwargs: dict[str, Any]) -> nn.Module:
    """A run of a model that is not plasm's, but one that the user has registered."""
    architecture = config["architecture"]
    if is_timm_model(architecture):
        raise ValueError(f"{run} holds a {architecture}, which is timm's and no model of plasm")
    if name is None and not timm.is_model(architecture):
        raise ValueError(f"{run} holds a {shown(architecture)}, which is no model of plasm: name it as MODULE:NAME")
    tensors, file = weights.load_folder(run)
    name, what = name or architecture, f"{run / 'config.json'}"
    check_sizes(config.get("model_args", {}), {}, what)
    arguments = {**config.get("model_args", {}), **kwargs}
    empty = None
    with suppress(Exception), torch.device("meta"):  # what is wrong with it shows when it is made
        empty = create_model(name, **arguments)
    if empty is not None:
        check_count(empty, what)
        weights.check_tensors(tensors, empty.state_dict(), str(file))
    try:
        model = create_model(name, **arguments)
    except Exception as error:
        # Arguments of any type may be in it, and constructors trip over them in as many ways.
        raise ValueError(f"{what} describes no {name}: {shown(error)}") from error
    weights.check_tensors(tensors, model.state_dict(), str(file))
    model.load_state_dict(tensors)
    return model


def _check_name(name: str | None, found: str, where: str) -> None:
    if name is not None and name.rpartition(":")[2].partition(".")[0] != found:
        raise ValueError(f"{where} holds a {shown(found)}, not a {name}")
