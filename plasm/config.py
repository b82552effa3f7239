"""Typed configurations: the options of a command, and a TOML file with them.

A file has a key for each field, tables for dictionaries, and ``command``, whose options it has. What is not in it has
the record's default.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin

from plasm.files import atomic_write, check_depth, listed, reason, require, shown

__all__ = ["Config", "dictionary", "option", "parse_config", "read_config"]

_LARGEST_FILE = 16 << 20
AnyConfig = TypeVar("AnyConfig", bound="Config")


def option(default: Any, help: str, at_least: float | None = None) -> Any:
    """A field of a record: its default, what it is, and the least value (of each entry) that makes sense.

    ``MISSING`` of dataclasses is the default of what has to be given.
    """
    return field(default=default, metadata={"help": help, "at_least": at_least})


def dictionary(help: str, given: Sequence[str] = ()) -> Any:
    """A field of a record that is a dictionary, by default empty; what its entries are.

    Args:
        help: Of its option.
        given: Names that no entry has: the command has values of its own for them.
    """
    return field(default_factory=dict, metadata={"help": f"{help} May be repeated.", "given": given})


@dataclass(frozen=True, kw_only=True)
class Config:
    """A record of options that checks its values' types and ranges.

    Attributes:
        command: Of ``plasm``, whose options these are.
    """

    command: ClassVar[str]

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: If one is of the wrong type or too small, or an entry of a dictionary is none of it.
        """
        for f in fields(self):
            value, least = getattr(self, f.name), f.metadata.get("at_least")
            _check_type(f.name, f.type, value)
            if wrong := [name for name in f.metadata.get("given", ()) if name in value]:
                raise ValueError(f"{f.name}: {', '.join(wrong)} is none of them; the command has its own")
            if least is not None and value is not None:
                for entry in value if isinstance(value, tuple) else (value,):
                    if entry < least:
                        raise ValueError(f"{f.name} is at least {least}, got {entry}")

    @classmethod
    def create(cls: type[AnyConfig], values: Mapping[str, Any], hint: str = "") -> AnyConfig:
        """Make a record of the values of its fields.

        Args:
            values: By name.
            hint: What to do where one is missing.

        Raises:
            ValueError: If a field without a default is missing, or a value is wrong.
        """
        needed = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
        if missing := [f"--{name.replace('_', '-')}" for name in needed if name not in values]:
            raise ValueError(f"missing: {', '.join(missing)}{hint}")
        return cls(**values)

    def to_toml(self) -> bytes:
        """The record as TOML, which has no None: a field that may be None has it as its default."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return require("tomli_w").dumps({"command": self.command, **values}).encode()

    def save(self, file: Path) -> None:
        """Write it, so that ``plasm COMMAND --config FILE`` has the same options."""
        with atomic_write(file) as beside:
            beside.write_bytes(self.to_toml())


def read_config(kind: type[Config], file: Path) -> dict[str, Any]:
    """Read the fields that a file gives.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no TOML, of another command, or holds what is not a field.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no configuration file {file}")
    try:
        if file.stat().st_size > _LARGEST_FILE:
            raise ValueError("is not TOML of plasm: it has more than 16 MiB")
        return parse_config(kind, file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} {error}") from error


def parse_config(kind: type[Config], content: bytes) -> dict[str, Any]:
    """The fields that the content of a file gives; see ``read_config``."""
    toml = require("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        values = toml.loads(content.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"is not TOML: its byte {error.start:,} is not UTF-8") from error
    except Exception as error:
        # Its own error, and Python's of what is nested deeply or a date that there is not.
        raise ValueError(f"is not TOML: {reason(error)}") from error
    check_depth(values, "what is in it")
    if (command := values.pop("command", kind.command)) != kind.command:
        raise ValueError(f"is for `plasm {shown(command)}`, this is `plasm {kind.command}`")
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"has unknown options: {listed(unknown)}; there are: {', '.join(sorted(known))}")
    return values


def _check_type(name: str, kind: Any, value: Any) -> None:
    allowed = tuple(str if get_origin(k) is Literal else get_origin(k) or k for k in (get_args(kind) or (kind,)))
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{name} is one of {', '.join(get_args(kind))}, got {shown(repr(value))}")
        return
    if get_origin(kind) is dict:
        allowed = (dict,)
    if float in allowed:
        allowed += (int,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise ValueError(f"{name} is {getattr(kind, '__name__', kind)}, got {shown(repr(value))}")
    if isinstance(value, float) and math.isnan(value):
        raise ValueError(f"{name} is a number, got nan")
    if isinstance(value, dict):
        toml = require("tomli_w")
        try:
            toml.dumps(value)
        except TypeError as error:
            raise ValueError(f"{name} holds what a configuration file cannot: {error}") from error
