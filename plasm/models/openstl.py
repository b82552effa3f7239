"""One door for the models of OpenSTL (Tan et al., NeurIPS 2023, arXiv 2306.11249): configuration, state dict -> model.

A configuration is what OpenSTL writes as ``model_param.json``, or a dictionary of the same keys. Each family knows the
rest: its file has

* ``from_openstl(config) -> model``: builds what a configuration describes, as ``read_config`` gives it;
* ``checkpoint_filter_fn(state_dict, model) -> state_dict``: timm's, which gives OpenSTL's tensors the model's names.

Shapes: T input frames, T' output frames, C image channels, H x W pixels.
"""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from plasm import weights

__all__ = ["build", "load", "read_config"]

# The module of this package that builds what a method of OpenSTL trains.
_FAMILIES: dict[str, str] = {
    "convlstm": "convlstm",
    "e3dlstm": "e3dlstm",
    "mau": "mau",
    "mim": "mim",
    "phydnet": "phydnet",
    "predrnn": "predrnn",
    "predrnnpp": "predrnnpp",
    "predrnnv2": "predrnn",
    "simvp": "simvp",
    "stam": "stam",
    "tau": "tau",
}
# What OpenSTL takes for a data set where the configuration has no in_shape: (T, C, H, W) and T'.
_DATA_SETS: dict[str, tuple[tuple[int, int, int, int], int]] = {
    "mmnist": ((10, 1, 64, 64), 10),
    "mfmnist": ((10, 1, 64, 64), 10),
    "mmnist_cifar": ((10, 3, 64, 64), 10),
    "taxibj": ((4, 2, 32, 32), 4),
    "human": ((4, 3, 256, 256), 4),
    "kitticaltech": ((10, 3, 128, 160), 1),
    "kth": ((10, 1, 128, 128), 20),
    "kth20": ((10, 1, 128, 128), 20),
    "kth40": ((10, 1, 128, 128), 40),
    "bair": ((2, 3, 64, 64), 10),
    "weather": ((12, 1, 32, 64), 12),
}


def read_config(config: Mapping[str, Any] | Path | str) -> dict[str, Any]:
    """Read a configuration of OpenSTL and put it into one form.

    ``method`` names the system; where it is missing, ``model`` does: ``SimVP_<model_type>``, or a recurrent name.

    Args:
        config: As a dictionary, or the path of a ``model_param.json``.

    Returns:
        The entries that are not null, of which ``method`` and ``model_type`` are in small letters, ``in_shape`` is a
        tuple (T, C, H, W), ``num_hidden`` a list of ints, and ``pre_seq_length`` and ``aft_seq_length`` are T and T'.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no such configuration.
    """
    what = "the configuration" if isinstance(config, Mapping) else str(config)
    given = config if isinstance(config, Mapping) else _read_json(Path(config))
    out = {str(key): value for key, value in given.items() if value is not None}
    name = str(out.get("method", out.get("model", ""))).lower()
    if not name:
        raise ValueError(f'{what} names no system: it has neither "method" nor "model"')
    system, _, kind = name.partition("_")
    if name not in _FAMILIES and system in _FAMILIES and system != "simvp":
        # "PredRNN_reverse" is PredRNN with other options, which are entries of their own.
        name = system
    if system == "simvp" and kind:
        name = system
        out.setdefault("model_type", kind)
    out["method"] = name
    if "model_type" in out:
        out["model_type"] = str(out["model_type"]).lower()
    if "num_hidden" in out:
        out["num_hidden"] = _ints(out["num_hidden"], "num_hidden", what)
    return out | _frames(out, what)


def build(config: Mapping[str, Any] | Path | str) -> nn.Module:
    """Make the model that a configuration describes, with random weights.

    Args:
        config: See ``read_config``.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no configuration of a system that plasm has.
    """
    model: nn.Module = _family(config).from_openstl(read_config(config))
    return model


def load(config: Mapping[str, Any] | Path | str, state_dict: Mapping[str, Any]) -> nn.Module:
    """Make the model that a configuration describes, with the weights of a state dict.

    Args:
        config: See ``read_config``.
        state_dict: OpenSTL's tensors by name, or a checkpoint that holds them as ``state_dict``; leading ``model.`` and
            ``module.`` fall off the names. ``plasm.weights.read_checkpoint`` reads them from a file.

    Returns:
        The model in eval mode; ``predict(clip, num_frames)`` gives what OpenSTL's test step does.

    Raises:
        OSError: If the configuration cannot be read.
        ValueError: If it is no configuration of a system that plasm has, or the tensors are not those of its model.
    """
    model = build(config)
    tensors = weights.plain_state_dict(state_dict, "the state dict")
    renamed: Mapping[str, Tensor] = _family(config).checkpoint_filter_fn(tensors, model)
    weights.check_tensors(renamed, model.state_dict(), "the state dict")
    model.load_state_dict(renamed)
    return model.eval()


def _family(config: Mapping[str, Any] | Path | str) -> Any:
    method = read_config(config)["method"]
    if method not in _FAMILIES:
        raise ValueError(f'plasm has no "{method}" of OpenSTL; it has {", ".join(sorted(_FAMILIES))}')
    return importlib.import_module(f"{__package__}.{_FAMILIES[method]}")


def _read_json(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} is no model_param.json of OpenSTL: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is no model_param.json of OpenSTL: it holds a {type(content).__name__}")
    return content


def _ints(value: Any, key: str, what: str) -> list[int]:
    """A list of positive ints, from a list of them, one alone, or text such as "128,128"."""
    parts = value.replace(",", " ").split() if isinstance(value, str) else value
    parts = parts if isinstance(parts, list | tuple) else [parts]
    try:
        numbers = [int(part) for part in parts]
    except (TypeError, ValueError):
        numbers = []
    if not numbers or min(numbers) < 1:
        raise ValueError(f"{what} has {key} = {value!r}, where numbers from 1 are expected")
    return numbers


def _frames(config: Mapping[str, Any], what: str) -> dict[str, Any]:
    """``in_shape``, ``pre_seq_length`` and ``aft_seq_length``."""
    name = str(config.get("dataname", "")).lower()
    known, after = _DATA_SETS.get(name, (None, None))
    if "in_shape" not in config and known is None:
        raise ValueError(f'{what} has no "in_shape", (T, C, H, W)')
    shape = _ints(config.get("in_shape", known), "in_shape", what)
    if len(shape) != 4:
        raise ValueError(f"{what} has an in_shape of {shape}, where (T, C, H, W) is expected")
    frames = _ints(config.get("pre_seq_length", shape[0]), "pre_seq_length", what)[0]
    later = _ints(config.get("aft_seq_length", after or frames), "aft_seq_length", what)[0]
    return {"in_shape": tuple(shape), "pre_seq_length": frames, "aft_seq_length": later}
