"""Weights of a training run, on disk: a folder that timm reads as "local-dir:RUN"."""

import json
from pathlib import Path
from typing import Any

import timm

import plasm
from plasm import weights
from plasm.models import PLASM

__all__ = ["load_model", "load_pretrained_parts", "make_model", "read_recipe", "read_run_config"]


def make_model(name: str, pretrained: bool = False, **kwargs: Any) -> PLASM:
    """``timm.create_model`` for plasm's models, with errors a user can act on.

    Raises:
        ValueError: If there is no such model, or it has no such argument.
    """
    if name.split(".")[0] not in plasm.list_models():
        raise ValueError(f"no model is called {name!r}; there are: {', '.join(plasm.list_models())}")
    try:
        return timm.create_model(name, pretrained=pretrained, **kwargs)
    except TypeError as error:
        raise ValueError(f"{name} was given what it does not take: {error}") from error


def read_run_config(run: Path) -> dict[str, Any]:
    """Read ``config.json`` of a run.

    Raises:
        FileNotFoundError: If the folder holds no run.
        ValueError: If the file is damaged.
    """
    file = run / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{run} is not a run: it holds no config.json")
    try:
        config: dict[str, Any] = json.loads(file.read_text())
        config["architecture"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{file} is damaged: {error!r}") from error
    return config


def read_recipe(run: Path) -> dict[str, Any]:
    """Read what a run was told: every field of its configuration, by name.

    Raises:
        FileNotFoundError: If the folder holds no run.
        ValueError: If the file is damaged.
    """
    file = run / "run.json"
    if not file.is_file():
        raise FileNotFoundError(f"{run} is not a run: it holds no {file.name}")
    try:
        recipe: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    return recipe


def load_pretrained_parts(model: PLASM, run: Path) -> None:
    """Take encoder and decoder from a run of phase 1, strictly; its Spatial Masking is dropped (Section IV-B).

    Raises:
        FileNotFoundError: If the folder holds no run.
        ValueError: If the run was of another architecture.
    """
    source = read_run_config(run)["architecture"]
    tensors = weights.load_tensors(run / "model.safetensors")
    for name in ("encoder", "decoder"):
        part = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        module = model.get_submodule(name)
        weights.check_tensors(part, module.state_dict(), f"the {name} of {run} (a {source})")
        module.load_state_dict(part)


def load_model(name: str | None, source: str | None) -> PLASM:
    """Make a model with weights.

    Args:
        name: Constructor. May be left out where ``source`` is a folder or a name of timm's.
        source: Folder of a run or of ``weights.save_pretrained``; "hf-hub:OWNER/NAME"; a safetensors file for
            ``name``; None for the published weights of ``name``.

    Raises:
        OSError: If there is no such folder or file, it is damaged, or cannot be had.
        ValueError: If the weights are of another model, of phase 1 alone, or do not fit.
        plasm.weights.WeightsNotFoundError: If the model has no published weights, or the Hub no such repository.
    """
    if source is None:
        if name is None:
            raise ValueError("name a model, weights, or both")
        return make_model(name, pretrained=True)
    path = Path(source)
    if source.startswith("hf-hub:"):
        model: PLASM = plasm.create_model(source, pretrained=True)
        made: Any = model.pretrained_cfg
        _check_name(name, made["architecture"], source)
        return model
    if path.is_dir():
        config = read_run_config(path)
        _check_name(name, config["architecture"], source)
        if config.get("phase") == "pretraining":
            raise ValueError(f"{path} is a run of phase 1 and predicts nothing: give it to `plasm train --init`")
        if config["architecture"] not in plasm.list_models():
            raise ValueError(f"{path} holds a {config['architecture']}, which is no model of plasm")
        return timm.create_model(f"local-dir:{path}", pretrained=True)
    if name is None:
        raise ValueError(f"{path} is not a folder with a config.json: name the model, too")
    if path.suffix != ".safetensors" or not path.is_file():
        raise FileNotFoundError(f"{path} is not there, or not a .safetensors file; wanted one, or a run's folder")
    return make_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(path)})


def _check_name(name: str | None, found: str, where: str) -> None:
    if name not in (None, found):
        raise ValueError(f"{where} holds a {found}, not a {name}")
