"""The models of OpenSTL (Tan et al., NeurIPS 2023, arXiv 2306.11249): configuration, state dict -> model.

A configuration is what OpenSTL writes as ``model_param.json``, a file of its ``configs/``, or a dictionary of the same
keys. Each family knows the rest: ``Family.openstl`` builds what a configuration describes, as ``read_config`` gives it,
and ``Family.checkpoint_filter_fn`` gives OpenSTL's tensors the model's names.

Shapes: T input frames, T' output frames, C image channels, H x W pixels.
"""

import ast
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from plasm import weights
from plasm.files import reason, shown

from .._builder import check_buildable
from .._family import Family
from .._registry import families, family_of
from .._untrusted import check_arguments

__all__ = ["create", "load", "read_config"]

_LARGEST_FILE = 1 << 20
# OpenSTL's dataset_parameters: (T, C, H, W) and T' of each data set.
with Path(__file__).with_name("data_sets.csv").open(encoding="utf-8", newline="") as _file:
    _DATA_SETS = {name: (tuple(map(int, shape)), int(after)) for name, *shape, after in list(csv.reader(_file))[1:]}


def read_config(config: Mapping[str, Any] | Path | str, data: str | None = None) -> dict[str, Any]:
    """Read a configuration of OpenSTL and put it into one form.

    ``method`` names the system; where it is missing, ``model`` does: ``SimVP_<model_type>``, or a recurrent name. The
    files of OpenSTL's ``configs/`` do not say what frames a model is for: there ``data`` does.

    Args:
        config: As a dictionary, or the path of a ``model_param.json`` or of a Python file of assignments, which is read
            and never run.
        data: Name of the data set, by OpenSTL's ``--dataname``: "mmnist", say.

    Returns:
        The entries that are not null, of which ``method`` and ``model_type`` are in small letters, ``in_shape`` is a
        tuple (T, C, H, W), ``num_hidden`` a list of ints, and ``pre_seq_length`` and ``aft_seq_length`` are T and T'.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no such configuration, OpenSTL has no such data set, or its frames are others than those
            that the configuration states.
    """
    what = _name(config)
    given = config if isinstance(config, Mapping) else _read_file(Path(config))
    out = {str(key): value for key, value in given.items() if value is not None}
    name = str(out.get("method", out.get("model", ""))).lower()
    if not name:
        raise ValueError(f'{what} names no system: it has neither "method" nor "model"')
    system, _, kind = name.partition("_")
    known = _families()
    if name not in known and system in known and system != "simvp":
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
    return out | _frames(out, data, what)


def create(config: Mapping[str, Any] | Path | str, data: str | None = None) -> nn.Module:
    """Make the model that a configuration describes, with random weights.

    Args:
        config: See ``read_config``.
        data: See ``read_config``.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no configuration of a system that plasm has.
    """
    return _build(read_config(config, data), _name(config))


def load(config: Mapping[str, Any] | Path | str, state_dict: Mapping[str, Any], data: str | None = None) -> nn.Module:
    """Make the model that a configuration describes, with the weights of a state dict.

    Args:
        config: See ``read_config``.
        state_dict: OpenSTL's tensors by name, or a checkpoint that holds them. ``plasm.weights.read_checkpoint`` reads
            a file, and says what of it is taken.
        data: See ``read_config``.

    Returns:
        The model in eval mode; ``predict(clip, num_frames)`` gives what OpenSTL's test step does.

    Raises:
        OSError: If the configuration cannot be read.
        ValueError: If it is no configuration of a system that plasm has, or the tensors are not those of its model.
    """
    read = read_config(config, data)
    family, model = _family(read["method"], _name(config)), _build(read, _name(config))
    renamed: Mapping[str, Tensor] = weights.plain_state_dict(state_dict, "the state dict")
    if family.checkpoint_filter_fn:
        renamed = family.checkpoint_filter_fn(dict(renamed), model)
    weights.check_tensors(renamed, model.state_dict(), "the state dict")
    model.load_state_dict(renamed)
    return model.eval()


def _families() -> dict[str, Family]:
    """The family that has a method of OpenSTL, by the method."""
    return {method: family for family in families() for method in family.openstl}


def _name(config: Mapping[str, Any] | Path | str) -> str:
    return "the configuration" if isinstance(config, Mapping) else str(config)


def _family(method: str, what: str) -> Family:
    known = _families()
    if method not in known:
        raise ValueError(f'{what}: plasm has no "{shown(method)}" of OpenSTL; it has {", ".join(sorted(known))}')
    return known[method]


def _build(read: Mapping[str, Any], what: str) -> nn.Module:
    """The model of a configuration of anyone: what no model has is refused before it is made."""
    family = _family(read["method"], what)
    _, channels, height, width = read["in_shape"]
    frames = {"in_frames": read["pre_seq_length"], "out_frames": read["aft_seq_length"]}
    try:
        name, given = family.openstl[read["method"]](read)
        args = {"in_chans": channels, "img_size": (height, width), **frames, **given}
        owner = family_of(name) or family
        check_arguments(owner.constructors[name].model_cls, args, owner.largest, what)
        check_buildable(name, args, what)
    except Exception as error:
        # Numbers of any size may be in it, and constructors trip over them in as many ways.
        if isinstance(error, ValueError) and what in str(error):
            raise
        said = str(error) if isinstance(error, ValueError) else reason(error)
        raise ValueError(f"{what} describes no model: {said}") from error
    return timm.create_model(name, **args)


def _read_file(file: Path) -> Mapping[str, Any]:
    kind = "configuration in Python" if file.suffix == ".py" else "model_param.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there, or no file")
    if (size := file.stat().st_size) > _LARGEST_FILE:
        raise ValueError(f"{file} is no {kind} of OpenSTL: it has {size:,} bytes")
    try:
        text = file.read_text(encoding="utf-8-sig")
        content = _read_assignments(text) if file.suffix == ".py" else json.loads(text)
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
        return content
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no {kind} of OpenSTL: its byte {error.start:,} is not UTF-8") from error
    except SyntaxError as error:
        raise ValueError(f"{file} is no {kind} of OpenSTL: {shown(error)}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{file} is no {kind} of OpenSTL: {reason(error)}") from error


def _read_assignments(text: str) -> dict[str, Any]:
    """The literals that a Python file gives to names; of what is none, its text, which no model takes for a number."""
    out: dict[str, Any] = {}
    for statement in ast.parse(text).body:
        match statement:
            case ast.Assign(targets=targets, value=value) if all(isinstance(target, ast.Name) for target in targets):
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                names = [name]
            case ast.Import() | ast.Expr(value=ast.Constant()):
                continue
            case _:
                raise ValueError(
                    f"line {statement.lineno} is no NAME = VALUE, and plasm does not run it: {ast.unparse(statement)}"
                )
        if "_base_" in names:
            raise ValueError(f"line {statement.lineno} takes more from other files, which plasm does not read")
        out |= dict.fromkeys(names, _literal(value))
    return out


def _literal(value: ast.expr) -> Any:
    try:
        return ast.literal_eval(value)
    except ValueError:
        return ast.unparse(value)


def _ints(value: Any, key: str, what: str) -> list[int]:
    """A list of positive ints, from a list of them, one alone, or text such as "128,128"."""
    parts = value.replace(",", " ").split() if isinstance(value, str) else value
    parts = parts if isinstance(parts, list | tuple) else [parts]
    try:
        # int() would cut a fraction off.
        numbers = [] if any(isinstance(part, float) and part % 1 for part in parts) else [int(part) for part in parts]
    except (TypeError, ValueError, OverflowError):
        numbers = []
    if not numbers or min(numbers) < 1:
        raise ValueError(f"{what} has {key} = {shown(repr(value))}, where numbers from 1 are expected")
    return numbers


def _frames(config: Mapping[str, Any], data: str | None, what: str) -> dict[str, Any]:
    """``in_shape``, ``pre_seq_length`` and ``aft_seq_length``."""
    if data is not None and data.lower() not in _DATA_SETS:
        raise ValueError(f'OpenSTL has no data set "{data}"; it has {", ".join(_DATA_SETS)}')
    name = str(config.get("dataname", "")) if data is None else data
    known, after = _DATA_SETS.get(name.lower(), (None, None))
    if "in_shape" not in config and known is None:
        raise ValueError(
            f'{what} has no "in_shape", (T, C, H, W): --data (data=) names the data set, one of {", ".join(_DATA_SETS)}'
        )
    shape = _ints(config.get("in_shape", known), "in_shape", what)
    if len(shape) != 4:
        raise ValueError(f"{what} has an in_shape of {shape}, where (T, C, H, W) is expected")
    frames = _ints(config.get("pre_seq_length", shape[0]), "pre_seq_length", what)[0]
    later = _ints(config.get("aft_seq_length", after or frames), "aft_seq_length", what)[0]
    if data is not None and (tuple(shape), frames, later) != (known, shape[0], after):
        raise ValueError(
            f"{what} is for {frames} -> {later} frames of an in_shape of {shape}, which are not those of {data}: leave "
            "--data out"
        )
    return {"in_shape": tuple(shape), "pre_seq_length": frames, "aft_seq_length": later}
