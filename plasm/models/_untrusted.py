"""Checks of untrusted configurations, before anything is allocated.

Of a config.json that comes with weights ("hf-hub:..." and "local-dir:..."), little is trusted: the arguments of the
model's constructor and what describes its input, in sizes that a model can have. What a user asks for himself is not
checked here.
"""

import inspect
from collections.abc import Mapping
from typing import Any, get_args

from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import nn

from plasm.files import listed, shown

_LARGEST_ARGUMENT = 1 << 16
_LONGEST_ARGUMENT = 64
_MOST_PARAMETERS = 1_000_000_000
# What ``whole`` says of a value, for ``no_number``.
_FRACTION = "fraction"
# What timm's scripts pass to every model, and timm records, though a class may not have it.
_TIMM_ARGUMENTS = {
    "num_classes", "global_pool", "in_chans", "drop_rate", "drop_path_rate", "drop_block_rate", "img_size"
}  # fmt: skip
REMOVED_ARGUMENTS = frozenset(
    {"sampling_stop", "reverse_sampling", "sampling_alpha", "decouple_weight", "forcing_steps"}
)
"""Options of training that a config.json may state, and models no longer have: they change no forecast."""
_ACCEPTED = ("input_size", "mean", "std", "tag", "license", "description", "origin_url", "paper_name", "paper_ids")
SOURCES = ("state_dict", "file", "hf_hub_id", "url")
NO_SOURCE: dict[str, Any] = {"source": None, "custom_load": False, "hf_hub_filename": None, **dict.fromkeys(SOURCES)}


def parameters_of(model_cls: type[nn.Module]) -> dict[str, Any]:
    """The arguments of a class and their defaults, but for device and data type."""
    parameters = inspect.signature(model_cls).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in ("device", "dtype")}


def takes(model_cls: type[nn.Module], name: str) -> bool:
    """Whether a class has an argument of this name, or takes any."""
    parameters = inspect.signature(model_cls).parameters
    return name in parameters or any(p.kind == p.VAR_KEYWORD for p in parameters.values())


def check_bools(model_cls: type[nn.Module], args: Mapping[str, Any], what: str) -> None:
    """Refuse, by a ValueError, texts for arguments that are True or False: "no" would count as True."""
    for name, parameter in inspect.signature(model_cls).parameters.items():
        kinds = get_args(parameter.annotation) or (parameter.annotation,)
        if bool in kinds and str not in kinds and isinstance(args.get(name), str):
            raise ValueError(f"{name} of {what} is True or False, got {shown(repr(args[name]))}")


def describe_input(variant: str, given: Mapping[str, Any] | PretrainedCfg) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of a configuration, what describes the input; and apart, where it came from."""
    fields: Mapping[str, Any] = given.to_dict() if isinstance(given, PretrainedCfg) else given
    cfg = get_pretrained_cfg(variant).to_dict(remove_source=True)
    cfg |= {key: fields[key] for key in _ACCEPTED if fields.get(key) is not None}
    # timm names the source of a config.json itself; other sources that the file names are ignored.
    accepted = {"hf-hub": ("source", "hf_hub_id"), "local-dir": ("source", "file")}.get(
        fields.get("source") or "", NO_SOURCE
    )
    return {**cfg, "architecture": variant}, {key: fields[key] for key in accepted if fields.get(key)}


def input_channels(cfg: Mapping[str, Any], what: str) -> int:
    """C of the ``input_size`` of a configuration; a ValueError if it is no size."""
    size = cfg["input_size"]
    if not (
        isinstance(size, list | tuple)
        and len(size) == 3
        and all(type(n) is int and 0 < n <= _LARGEST_ARGUMENT for n in size)
    ):
        raise ValueError(f"{what} has an input_size (C, H, W) of {shown(repr(size))}")
    return size[0]


def check_arguments(model_cls: type[nn.Module], args: Mapping[str, Any], largest: Mapping[str, int], what: str) -> None:
    """Refuse, by a ValueError, arguments that the class does not have, or of values that none of its models has."""
    own = parameters_of(model_cls)
    if unknown := [str(name) for name in args if name not in own and name not in _TIMM_ARGUMENTS]:
        raise ValueError(f"{what} has arguments that a {model_cls.__name__} has not: {listed(unknown)}")
    check_sizes({key: value for key, value in args.items() if key in own}, largest, what)


def check_sizes(args: Mapping[str, Any], largest: Mapping[str, int], what: str) -> None:
    """Refuse, by a ValueError, numbers that no argument has, and long lists; ``largest`` by name, else it is 65,536."""
    for name, value in args.items():
        most = largest.get(name, _LARGEST_ARGUMENT)
        numbers = value if isinstance(value, list | tuple) else [value]
        if len(numbers) > _LONGEST_ARGUMENT:
            raise ValueError(f"{what} has {len(numbers):,} values of {name}; plasm takes up to {_LONGEST_ARGUMENT}")
        if any(isinstance(number, int) and not 0 <= number <= most for number in numbers):
            raise ValueError(f"{what} has {shown(name)} = {shown(value)}; plasm builds it up to {most}")


def no_number(error: Exception) -> str:
    """What an error says of a value that was to be a number, in words that are not Python's."""
    what, told, value = str(error).rpartition(": ")
    if what == _FRACTION:
        return f"the configuration has a {_FRACTION} where a whole number is needed: {shown(value)}"
    return f"the configuration has a value that is no number{told}{shown(value) if told else ''}"


def whole(config: Mapping[str, Any], name: str, default: int) -> int:
    """A number of a configuration that counts something, by name.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is no number, or has a fraction, which ``int`` would cut off; for ``no_number`` to word.
    """
    value = config.get(name, default)
    if isinstance(value, float) and value % 1 > 0:
        raise ValueError(f"{_FRACTION}: {name} = {value}")
    return int(value)


def check_count(model: nn.Module, what: str) -> None:
    """Refuse, by a ValueError, a model of more than 10^9 parameters, perhaps on the meta device."""
    count = sum(tensor.numel() for tensor in model.state_dict().values())
    if count > _MOST_PARAMETERS:
        raise ValueError(
            f"{what} describes a model of {count:,} parameters; plasm builds it up to {_MOST_PARAMETERS:,}"
        )


def empty_model(model_cls: type[nn.Module], args: Mapping[str, Any], what: str) -> nn.Module:
    """A model whose tensors have names and shapes, and of which nothing is allocated; a ValueError if there is none."""
    foreign = _TIMM_ARGUMENTS - parameters_of(model_cls).keys()
    own = {name: value for name, value in args.items() if name not in foreign}
    try:
        return model_cls(**{**own, "device": "meta"})
    except Exception as error:
        # A value of any type may be in it, and constructors trip over them in as many ways.
        raise ValueError(f"{what} describes no {model_cls.__name__}: {shown(error)}") from error
