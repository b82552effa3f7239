"""The state of any optimizer as a checkpoint holds it: tensors by name, and the rest as JSON."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from plasm.files import shown

_TENSOR, _TUPLE, _DTYPE, _ITEMS = "$tensor", "$tuple", "$dtype", "$items"


def encode(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A value of numbers, texts, tensors, dtypes, lists, tuples and dictionaries, as JSON has it.

    Its tensors are added to ``tensors``, named after the value and the keys or positions that lead to them.

    Raises:
        TypeError: If it holds anything else.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if torch.is_tensor(value):
        tensors[name] = value
        return {_TENSOR: name}
    if isinstance(value, torch.dtype):
        return {_DTYPE: str(value).removeprefix("torch.")}
    if isinstance(value, (list, tuple)):
        items = [encode(item, f"{name}.{number}", tensors) for number, item in enumerate(value)]
        return items if isinstance(value, list) else {_TUPLE: items}
    if isinstance(value, dict):
        return {
            _ITEMS: [
                [encode(key, name, tensors), encode(item, f"{name}.{key if type(key) is str else n}", tensors)]
                for n, (key, item) in enumerate(value.items())
            ]
        }
    raise TypeError(f"{name} is a {type(value).__name__}, which no checkpoint can hold")


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of ``encode``, with its tensors by name.

    Raises:
        KeyError: If a tensor is missing.
        TypeError: If ``encode`` gives no such value.
    """
    if isinstance(value, list):
        return [decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1 or not value.keys() <= {_TENSOR, _TUPLE, _DTYPE, _ITEMS}:
        raise TypeError(f"no encoded value: {shown(value)}")
    ((kind, content),) = value.items()
    if kind == _TENSOR:
        return tensors[content]
    if kind == _DTYPE:
        return getattr(torch, content)
    items = [decode(item, tensors) for item in content]
    return dict(map(tuple, items)) if kind == _ITEMS else tuple(items)
