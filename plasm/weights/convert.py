"""Old checkpoints, ``.pth`` and Lightning's ``.ckpt``: their tensors are read, nothing in them is ever run."""

import argparse
import logging
import pickle
import re
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from plasm.files import listed, reason, shown

from .files import check_size, foreign_content

_logger = logging.getLogger(__name__)

# Where a checkpoint has its weights, the first that counts first: timm's order, and after its averages those of others.
_AVERAGES = ("state_dict_ema", "model_ema", "params_ema", "ema_state_dict", "ema_model", "ema")
_CONTAINERS = ("state_dict", "model", "model_state_dict", "net_param", "params", "module", "net", "network", "weights")
# A part of a name by which anything else is an average.
_AVERAGE = re.compile(r"(^|_)(ema|swa|avg|average|averaged)(_|$)")
# How many times more than what is stored tensors may be, and what they may be anyway, in bytes.
_LARGEST_RATIO, _SMALL = 8, 1 << 20
_DEEPEST = 4
_LONGEST_PROGRAM = 4_000
_PREFIXES = re.compile(r"^((_orig_mod|module|model)\.)+")


def read_checkpoint(file: Path, key: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of an old checkpoint, with ``weights_only=True``.

    Of a dictionary, timm's choice is taken: an average of the weights before the weights (``state_dict_ema``,
    ``model_ema``, then others' averages, ``params_ema`` say), then ``state_dict``, ``model``, and what others call it
    (``model_state_dict``, ``net_param``, ``params``, ``module``, ...), or else the one entry that holds tensors. A
    warning says what was taken where there was a choice. Leading ``model.`` (Lightning), ``module.``
    (DistributedDataParallel) and ``_orig_mod.`` (torch.compile) fall off the names.

    Args:
        file: The checkpoint.
        key: The entry to take instead; of an entry within another, ``OUTER.INNER``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds other Python objects than tensors and plain values, is no checkpoint, two tensors
            come to bear one name, there is no such entry, or several entries may be meant.
    """
    return read_entry(file, key)[1]


def read_entry(file: Path, key: str | None = None) -> tuple[str, dict[str, Tensor]]:
    """As ``read_checkpoint``, with the name of the entry before the tensors; "" where the file holds them itself."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there, or no file")
    if (foreign := foreign_content(file)) or (foreign := _no_container(file)):
        raise ValueError(f"{file} is no checkpoint of torch: it {foreign}")
    check_size(file)
    _check_sums(file)
    try:
        # Never with weights_only=False, whatever the file asks for: that runs what it says.
        with torch.serialization.safe_globals([argparse.Namespace]):
            # The options of timm's trainer, plain values by name.
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(_more_than_tensors(file)) from error
    except Exception as error:
        # Of damaged bytes anything may come.
        raise ValueError(f"{file} is no whole checkpoint of torch: {reason(error)}") from error
    try:
        taken, found = _choose(content, str(file), key)
    except RecursionError as error:
        # A pickle can hold a dictionary that is in itself.
        raise ValueError(f"{file} is no checkpoint of torch: {reason(error)}") from error
    tensors = _plain(found, str(file))
    _check_expanded(tensors, str(file))
    # Tied tensors share memory, which safetensors refuses; what is only marked as negative or conjugate becomes so.
    return taken, {name: tensor.resolve_conj().resolve_neg().clone() for name, tensor in tensors.items()}


def plain_state_dict(content: Any, what: str, key: str | None = None) -> dict[str, Tensor]:
    """The tensors of a checkpoint that is read, by plain names; see ``read_checkpoint``.

    Args:
        content: A state dict, or what holds one.
        what: What the error calls it.
        key: As for ``read_checkpoint``.

    Raises:
        ValueError: If it holds no tensors, two come to bear one name, there is no such entry, or several may be meant.
    """
    return _plain(_choose(content, what, key)[1], what)


def _plain(content: Any, what: str) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{what} holds a {type(content).__name__}, not tensors with names")
    if wrong := [f"{name}{_kind(value)}" for name, value in content.items() if not _is_plain(name, value)]:
        raise ValueError(f"{what} holds what is no dense tensor with a name: {listed(wrong)}")
    # torch's AveragedModel has the count of its averages beside them.
    averaged = "n_averaged" in content and all(name.startswith("module.") for name in content.keys() - {"n_averaged"})
    tensors: dict[str, Tensor] = {}
    for name, tensor in content.items():
        short = _PREFIXES.sub("", name)
        if averaged and name == "n_averaged":
            continue
        if short in tensors:
            raise ValueError(f"{what} holds two tensors that would be called {short}")
        tensors[short] = tensor
    return tensors


def _no_container(file: Path) -> str | None:
    """Why a file cannot be a zip or pickle, as which torch writes and wrote checkpoints; None if it can."""
    with file.open("rb") as stream:
        head = stream.read(512)
    if head.startswith((b"PK", b"\x80")):
        return None
    if head[257:262] == b"ustar":
        # torch would advise to unpickle it.
        return (
            "is a tar archive, as torch wrote them until 2017, which is not read without running it. Whoever made it "
            "and trusts it can save the tensors anew: torch.save(model.state_dict(), FILE)"
        )
    if head[8:9] == b"{":
        return "is a safetensors file already"
    return f"begins with {head[:16]!r}"


def _check_sums(file: Path) -> None:
    """Compare a zip's contents with their checksums, which torch does not look at.

    Raises:
        ValueError: If one is another: a weight would be another, without a word.
    """
    try:
        if not zipfile.is_zipfile(file):
            return
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
            # torch compresses nothing.
            fits = unpacked <= _LARGEST_RATIO * file.stat().st_size + _SMALL
            wrong = archive.testzip() if fits else None
    except Exception as error:
        # Of damaged bytes anything may come.
        raise ValueError(f"{file} is no whole checkpoint of torch: {reason(error)}") from error
    if not fits:
        raise ValueError(f"{file} is no checkpoint of torch: it would unpack to {unpacked / 1e9:,.1f} GB")
    if wrong is not None:
        raise ValueError(
            f"{file} is no whole checkpoint of torch: {wrong} in it is damaged, its checksum is another (unless it was "
            "written under torch.serialization.set_crc32_options(False))"
        )


def _check_expanded(tensors: Mapping[str, Tensor], what: str) -> None:
    """Refuse tensors that say a few stored values again and again: written out, kilobytes would fill the machine.

    Raises:
        ValueError: If they would take many times what is stored; ties take a few times.
    """
    stored = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if needed > _LARGEST_RATIO * sum(stored.values()) + _SMALL:
        largest = sorted(tensors, key=lambda name: -tensors[name].numel())[:3]
        raise ValueError(
            f"{what} holds {sum(stored.values()):,} bytes of values, which tensors repeat to {needed / 1e9:,.1f} GB: "
            f"{listed(f'{name} {tuple(tensors[name].shape)}' for name in largest)}. Whoever made it and trusts it can "
            "save them written out"
        )


def _choose(content: Any, what: str, key: str | None, within: str = "") -> tuple[str, Any]:
    """The entry of a checkpoint that has its weights, and its name; "" and the whole where it holds them itself.

    ``within`` is what the names of entries begin with, as ``key`` has them.
    """
    if not isinstance(content, Mapping):
        return "", content
    entries = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Mapping)}
    holders = [name for name, value in entries.items() if _holds_tensors(name, value)]
    named = [name for name in (*_AVERAGES, *_CONTAINERS) if name in holders]
    # What holds no tensors is an error that says what is there instead.
    named = named or [name for name in (*_AVERAGES, *_CONTAINERS) if entries.get(name)]
    rest = ""
    if key is not None:
        taken, rest = _entry(key, entries)
        if taken not in entries:
            there = listed(within + name for name in holders or entries) or "tensors alone"
            raise ValueError(f'{what} has no entry "{within}{key}" of tensors; it holds {there}')
    elif named and named[0] in _AVERAGES:
        taken = named[0]
    elif averages := list(filter(_is_average, holders)):
        taken = _only(averages, what, within)
    elif named:
        taken = named[0]
    elif holders and not any(isinstance(value, Tensor) for value in content.values()):
        taken = _only(holders, what, within)
    else:
        return "", content
    if key is None and (others := [name for name in holders if name != taken]):
        there = listed(within + name for name in others)
        _logger.warning('%s: took "%s"; --key takes another: %s', what, shown(within + taken), there)
    # An average as a list of tensors without names, as torch_ema keeps it: which is whose, only its writer knows.
    unread = [
        name for name, value in content.items() if _is_average(name) and name not in holders and _tensors_in(value)
    ]
    if key is None and unread and not _is_average(taken):
        there = listed(within + name for name in unread)
        _logger.warning(
            '%s: took "%s", not the average in %s, whose tensors have no names', what, shown(within + taken), there
        )
    # What is found may be another such dictionary: the state of a wrapper, say.
    inner, found = _choose(content[taken], what, rest or None, f"{within}{taken}.")
    return ".".join(filter(None, (taken, inner))), found


def _entry(key: str, entries: Mapping[str, Any]) -> tuple[str, str]:
    """Of the name of an entry, perhaps within another, the outer one's name and the rest."""
    if key in entries:
        return key, ""
    # A name may have dots of its own.
    outer = [name for name in entries if key.startswith(f"{name}.") and key != f"{name}."]
    name = max(outer, key=len, default=key)
    return name, key[len(name) + 1 :]


def _only(names: list[str], what: str, within: str) -> str:
    if len(names) > 1:
        there = listed(within + name for name in names)
        raise ValueError(f"{what} holds several sets of tensors, {there}: choose one with --key")
    return names[0]


def _holds_tensors(name: str, value: Mapping[Any, Any], depth: int = _DEEPEST) -> bool:
    """Whether an entry is a state dict or has one, rather than an optimizer's state or options of the run."""
    if not depth:
        # Each entry can be the same dictionary: looking without end would take for ever.
        return False
    known = {*_AVERAGES, *_CONTAINERS}
    if value and all(_is_plain(inner, each) for inner, each in value.items()):
        return True
    if name in known and any(isinstance(each, Tensor) for each in value.values()):
        return True
    parts = ((inner, each) for inner, each in value.items() if inner in known and isinstance(each, Mapping))
    return any(_holds_tensors(inner, each, depth - 1) for inner, each in parts)


def _is_average(name: Any) -> bool:
    return isinstance(name, str) and (name in _AVERAGES or _AVERAGE.search(name) is not None)


def _tensors_in(value: Any) -> bool:
    """Whether an entry is a list of tensors, or has one."""
    lists = value.values() if isinstance(value, Mapping) else [value]
    return any(isinstance(each, list | tuple) and any(isinstance(one, Tensor) for one in each) for each in lists)


def _is_plain(name: Any, value: Any) -> bool:
    dense = isinstance(value, Tensor) and value.layout is torch.strided and not value.is_nested
    return isinstance(name, str) and dense and not _kind(value)


def _kind(value: Any) -> str:
    """What is special about a tensor, in parentheses, if its values cannot be written as they are."""
    if not isinstance(value, Tensor):
        return ""
    if value.is_meta:
        return " (a meta tensor, which has no values)"
    if value.is_quantized:
        return " (quantized)"
    return "" if _can_be_stored(value.dtype) else f" ({str(value.dtype).removeprefix('torch.')})"


@cache
def _can_be_stored(dtype: torch.dtype) -> bool:
    """Whether safetensors has a type; its version decides."""
    try:
        save({"a": torch.empty(0, dtype=dtype)})
    except Exception:
        return False
    return True


def _more_than_tensors(file: Path) -> str:
    """What else a checkpoint holds, and how its tensors come out though nothing of the file is run."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    except Exception:
        # Of the format before torch 1.6, in which it does not look.
        names = []
    if not names or len(repr(names)) > _LONGEST_PROGRAM:
        return (
            f"{file} holds Python objects beside tensors, which plasm does not run to read it. Whoever made it and "
            "trusts it can save the tensors alone: torch.save(model.state_dict(), FILE)"
        )
    return f"""{file} holds Python objects beside tensors, which plasm does not run to read it: {listed(names)}.
This Python program saves its tensors alone, and runs nothing of it either: an empty class stands for each of those.

import torch

class Empty:
    def __init__(self, *args, **kwargs): pass
    def __setstate__(self, state): pass

with torch.serialization.safe_globals([(Empty, name) for name in {names!r}]):
    content = torch.load({str(file)!r}, weights_only=True)
taken = next((content[name] for name in {(*_AVERAGES, *_CONTAINERS)!r} if isinstance(content.get(name), dict)), content)
torch.save(taken, {str(file.with_suffix(".tensors.pth"))!r})"""
