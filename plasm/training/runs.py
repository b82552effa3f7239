"""Weights of a training run, on disk: a folder that timm reads as "local-dir:RUN"."""

import importlib
import json
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

import plasm
from plasm import weights

__all__ = ["frame_counts", "load_model", "load_pretrained_parts", "make_model", "read_run_config"]


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
        importlib.import_module(module)
    if not timm.is_model(short):
        raise ValueError(f"no model is called {name!r}; there are: {', '.join(plasm.list_models())}, and timm's")
    try:
        model: nn.Module = timm.create_model(short, pretrained=pretrained, **kwargs)
    except TypeError as error:
        raise ValueError(f"{name} was given what it does not take: {error}") from error
    for attribute in ("num_classes", "num_features"):
        # timm asks for them when it describes a model; to a user's model of clips they mean nothing.
        if not hasattr(model, attribute):
            setattr(model, attribute, 0)
    return model


def frame_counts(model: nn.Module) -> tuple[int, int]:
    """T and T' of a model.

    Raises:
        ValueError: If the model does not say.
    """
    counts = tuple(getattr(model, name, None) for name in ("in_frames", "out_frames"))
    if not all(isinstance(count, int) and count > 0 for count in counts):
        raise ValueError(
            f"{type(model).__name__} does not say how many frames it maps to how many: it needs the attributes "
            "in_frames and out_frames"
        )
    return counts  # type: ignore[return-value]


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


def load_pretrained_parts(model: nn.Module, run: Path) -> None:
    """Take encoder and decoder from a run of phase 1, strictly; its Spatial Masking is dropped (Section IV-B).

    Raises:
        FileNotFoundError: If the folder holds no run.
        ValueError: If the run was of another architecture.
    """
    source = read_run_config(run)["architecture"]
    tensors = weights.load_tensors(run / "model.safetensors")
    for name in ("encoder", "decoder"):
        part = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        _load_strictly(model.get_submodule(name), part, f"the {name} of {run} (a {source})")


def load_model(name: str | None, source: str | None) -> nn.Module:
    """Make a model with weights.

    Args:
        name: Constructor. May be left out where ``source`` is a folder.
        source: Folder of a run or of ``weights.save_pretrained``; a safetensors file for ``name``; None for the
            published weights of ``name``.

    Raises:
        FileNotFoundError: If there is no such folder or file.
        ValueError: If the weights are of another model, of phase 1 alone, or do not fit.
        plasm.weights.WeightsNotFoundError: If the model has no published weights.
    """
    if source is None:
        if name is None:
            raise ValueError("name a model, weights, or both")
        return make_model(name, pretrained=True)
    path = Path(source)
    if path.is_dir():
        config = read_run_config(path)
        if name is not None and name.rpartition(":")[2] != config["architecture"]:
            raise ValueError(f"{path} holds a {config['architecture']}, not a {name}")
        if config.get("phase") == "pretraining":
            raise ValueError(f"{path} is a run of phase 1 and predicts nothing: give it to `plasm train --init`")
        model, file = (
            make_model(name or config["architecture"], **config.get("model_args", {})),
            path / "model.safetensors",
        )
    elif name is None:
        raise ValueError(f"{path} is not a folder with a config.json: name the model, too")
    else:
        model, file = make_model(name), path
    if file.suffix != ".safetensors" or not file.is_file():
        raise FileNotFoundError(f"{file} is not there, or not a .safetensors file; wanted one, or a run's folder")
    _load_strictly(model, weights.load_tensors(file), str(file))
    return model


def _load_strictly(module: nn.Module, tensors: dict[str, Tensor], what: str) -> None:
    own = module.state_dict()
    problems = {
        "missing": [name for name in own if name not in tensors],
        "unexpected": [name for name in tensors if name not in own],
        "of another shape": [name for name in own if name in tensors and own[name].shape != tensors[name].shape],
    }
    found = [f"{len(names)} tensors {kind} ({names[0]}, ...)" for kind, names in problems.items() if names]
    if found:
        raise ValueError(f"{what} does not fit the model: {'; '.join(found)}")
    module.load_state_dict(tensors)
