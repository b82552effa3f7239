"""One case of a fuzzer, and what came of it."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from plasm.weights import WeightsNotFoundError

__all__ = ["Case", "Fuzzer", "Outcome", "judge", "unclear"]

What = Literal["refused", "taken", "wrongly taken", "crashed"]
# What plasm turns into one clear line for its user.
_CLEAR = (ValueError, OSError, ImportError, WeightsNotFoundError, FloatingPointError)
# What Python says of its own code, and libraries of theirs: no user can do anything with it.
PYTHONS_OWN = (
    "Traceback", "invalid literal", "object is not", "object has no attribute", "not supported between",
    "maximum recursion", "values to unpack", "unexpected keyword", "positional argument", "list index",
    "index out of range", "string indices", "codec can't", "must be str", "must be a string",
    "must be real number", "NoneType", "unhashable", "Invalid argument", "KeyError",
    "cannot reshape", "could not convert", "embedded null", "Exceeds the limit", "math domain", "division by zero",
    "Unable to allocate", "can't allocate", "enforce fail", "INTERNAL ASSERT", "Expecting value", "bad_alloc",
)  # fmt: skip
_LONGEST = 20_000


@dataclass(frozen=True)
class Case:
    """One thing to try.

    Attributes:
        kind: Row of the table.
        run: Tries it. An exception that plasm's commands print as one line refuses; any other is a crash.
        right: Whether what ``run`` returned is right; None where nothing but a refusal is.
        named: What a clear error must contain, the file's name.
    """

    kind: str
    run: Callable[[], Any]
    right: Callable[[Any], bool] | None = None
    named: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        kind: Of the case.
        what: How it ended.
        why: The error, or what was taken.
    """

    kind: str
    what: What
    why: str


@dataclass(frozen=True)
class Fuzzer:
    """A kind of damage.

    Attributes:
        prepare: Makes, in a folder that stays, what all cases share; done once in each process.
        create: Makes case ``number`` of a random generator, in a folder of its own, from what ``prepare`` returned.
    """

    prepare: Callable[[Path], Any]
    create: Callable[[np.random.Generator, int, Path, Any], Case]


def unclear(text: str, named: str) -> str | None:
    """Why the message of an error is not clear; None if it is."""
    if not named or named not in text:
        return f"it does not name {named or 'the file'}"
    # The way to a file may be any.
    rest = text.replace(named, "")
    if own := [words for words in PYTHONS_OWN if words in rest]:
        return f"it says {own[0]!r}, which is Python's own"
    if len(text) > _LONGEST:
        return f"it has {len(text):,} characters"
    if wrong := sorted({character for character in text if not character.isprintable() and character != "\n"}):
        return f"it holds control characters: {wrong}"
    return None


def judge(case: Case) -> Outcome:
    """Try a case."""
    try:
        result = case.run()
    except _CLEAR as error:
        if (why := unclear(str(error), case.named)) is None:
            return Outcome(case.kind, "refused", str(error))
        return Outcome(case.kind, "crashed", f"no clear error ({why}): {traceback.format_exc()}")
    except Exception:
        return Outcome(case.kind, "crashed", traceback.format_exc())
    try:
        if case.right is not None and case.right(result):
            return Outcome(case.kind, "taken", "")
    except Exception:
        return Outcome(case.kind, "wrongly taken", traceback.format_exc())
    return Outcome(case.kind, "wrongly taken", repr(result)[:200])
