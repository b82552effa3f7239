"""Untrusted text: on its way into an error message, or out of JSON."""

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_DEPTH = 32
_BYTES = 16 << 20
_NAMES = 32
# How Python and numpy begin when they speak of code.
_OF_CODE = re.compile(
    r".*invalid literal|could not convert|cannot reshape|embedded null|unpack|Exceeds the limit|malformed node|"
    r".*Invalid argument|.* object at 0x"
)


def shown(text: object, most: int = 200, kept: str = "") -> str:
    """Text of a file as a message can hold it: one line, cut, and with no character that a terminal would obey.

    Args:
        text: Whatever ``str`` makes text of.
        most: Characters that are kept.
        kept: Characters that stay as they are, a new line say.
    """
    whole = str(text)[: most + 1]
    safe = "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in whole)
    return safe if len(safe) <= most else f"{safe[:most]}..."


def listed(names: Iterable[object]) -> str:
    """Names of a file as a message can hold them: the first 32, each as ``shown``, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - _NAMES:,} more" if len(names) > _NAMES else ""
    return ", ".join(shown(name, 120) for name in names[:_NAMES]) + more


def reason(error: BaseException) -> str:
    """Why a library could not read a file: its message, or a general one where Python's own is about code."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    lines = str(error).strip().splitlines()
    library = type(error).__module__ != "builtins" or isinstance(error, RuntimeError | OSError)
    if not lines or not (library or type(error) is ValueError) or _OF_CODE.match(lines[0]):
        return "something in it cannot be read"
    return shown(lines[0])


def read_json(file: Path) -> Any:
    """Read a small JSON file, a configuration say.

    Raises:
        OSError: If there is no such file, or it cannot be read.
        ValueError: If it is no JSON, larger than 16 MiB, or nested deeper than 32 times.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there, or no file")
    if (size := file.stat().st_size) > _BYTES:
        raise ValueError(f"{file} is damaged: it has {size:,} bytes, far more than a file of its kind")
    return parse_json(file.read_bytes(), str(file))


def parse_json(content: bytes | str, what: str) -> Any:
    """Read JSON, whatever it holds; ``what`` is what the error calls it. See ``read_json``."""
    try:
        value = json.loads(content if isinstance(content, str) else content.decode())
    except json.JSONDecodeError as error:
        raise ValueError(f"{what} is damaged: no JSON at line {error.lineno}, column {error.colno}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} is damaged: its byte {error.start:,} is not UTF-8") from error
    except Exception as error:
        # Nested deeply, a number of thousands of digits, more than memory holds.
        raise ValueError(f"{what} is damaged: {reason(error)}") from error
    check_depth(value, what)
    return value


def check_depth(value: Any, what: str) -> None:
    """Refuse what is nested so deeply that printing or copying it could fail.

    Raises:
        ValueError: If it is; ``what`` is what the error calls it.
    """
    level = [value]
    for _ in range(_DEPTH):
        inner = (v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list))
        level = [each for values in inner for each in values]
        if not level:
            return
    raise ValueError(f"{what} is damaged: it is nested deeper than {_DEPTH} times")


def is_count(value: Any) -> bool:
    """Whether a value is a positive integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
