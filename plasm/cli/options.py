"""Command-line options from typed configurations: one for each field, with its type, default and help."""

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, Literal, get_args, get_origin

import click

from plasm.data import GIVEN_BY_COMMANDS

_DICTIONARIES = ("data_args", "model_args", "task_args", "opt_args")
# Of commands that compare models: given several times, it is one text with commas.
_REPEATED = {"predict": ("model",)}


class Group(click.Group):
    """Commands, each with the whole first sentence of its help."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, uncut."""
        rows = [(name, self.commands[name].get_short_help_str(limit=1000)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class GroupedCommand(click.Command):
    """A command with its options in groups.

    Args:
        groups: Names of parameters by the title of their group; those of no group come last.
    """

    def __init__(self, *args: Any, groups: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a group after the other."""
        records = {
            str(parameter.name): record
            for parameter in self.get_params(ctx)
            if (record := parameter.get_help_record(ctx)) is not None
        }
        for title, names in self.groups.items():
            if rows := [records.pop(name) for name in names if name in records]:
                with formatter.section(title):
                    formatter.write_dl(rows)
        if records:
            with formatter.section("Other"):
                formatter.write_dl(list(records.values()))


def options(config: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """An option for each field of a configuration; what is not given is None, and the field's default holds."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for f in reversed(fields(config)):
            # A dictionary is given an item at a time.
            name = f"--{f.name.removesuffix('s') if f.name in _DICTIONARIES else f.name}".replace("_", "-")
            help_text = f.metadata["help"]
            kwargs: dict[str, Any] = {"default": None, "show_default": False}
            kinds = [kind for kind in get_args(f.type) if kind is not type(None)] or [f.type]
            if f.name in _DICTIONARIES:
                kwargs |= {"multiple": True, "metavar": "NAME=VALUE"}
            elif f.name in _REPEATED.get(config.command, ()):
                kwargs |= {
                    "multiple": True,
                    "metavar": "TEXT",
                    "callback": lambda _, __, texts: ",".join(texts) if texts else None,
                }
            elif get_origin(f.type) is Literal:
                kwargs["type"] = click.Choice(get_args(f.type))
            elif kinds[0] is bool:
                name = f"{name}/--no-{name[2:]}"
            elif get_origin(kinds[0]) is tuple:
                kwargs |= {"type": get_args(kinds[0])[0], "nargs": len(get_args(kinds[0]))}
                kwargs |= {"metavar": "H W"} if f.name == "size" else {}
            else:
                kwargs["type"] = kinds[0]
            if f.default is MISSING and f.default_factory is MISSING:
                help_text += "  [required]"
            elif f.default is not MISSING and f.default is not None:
                help_text += f"  [default: {f.default}]"
            command = click.option(name, f.name, help=help_text, **kwargs)(command)
        return command

    return decorate


def pairs(option: str, items: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE items of an option that may be repeated.

    A value is a Python literal, ``true`` or ``false`` as in a configuration file, or else text.

    Raises:
        ValueError: If an item is no NAME=VALUE, or the value None, or NAME what the command gives a data set itself.
    """
    values = {}
    for item in items:
        name, separator, value = item.partition("=")
        if not separator:
            raise ValueError(f"--{option.removesuffix('s').replace('_', '-')} takes NAME=VALUE, got {item!r}")
        if option == "data_args" and name in GIVEN_BY_COMMANDS:
            raise ValueError(f"--data-arg {item}: {name} is no option of a data set; the command has its own")
        try:
            values[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            # As text, "false" would be taken for true wherever only its truth is asked.
            values[name] = {"true": True, "false": False}.get(value.strip().lower(), value)
        if _has_none(values[name]):
            raise ValueError(f"--{option.removesuffix('s').replace('_', '-')} {item}: leave it out, for its default")
    return values


def _has_none(value: Any) -> bool:
    """Whether None is in a value, which no configuration of a run can hold."""
    return value is None or (isinstance(value, list | tuple) and any(map(_has_none, value)))


def given(arguments: dict[str, Any]) -> dict[str, Any]:
    """What the user gave, of a command's arguments; dictionaries whole."""
    dictionaries = {name: pairs(name, arguments[name]) for name in _DICTIONARIES if name in arguments}
    return {name: value for name, value in arguments.items() if value is not None} | dictionaries
