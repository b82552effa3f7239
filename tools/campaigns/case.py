"""One case of a campaign, and what came of it."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from plasm.weights import WeightsNotFoundError

__all__ = ["Campaign", "Case", "Outcome", "judge"]

What = Literal["refused", "taken", "wrongly taken", "crashed"]
# What plasm turns into one clear line for its user.
_CLEAR = (ValueError, OSError, ImportError, WeightsNotFoundError, FloatingPointError)


@dataclass(frozen=True)
class Case:
    """One thing to try.

    Attributes:
        kind: Row of the table.
        run: Tries it. An exception that plasm's commands print as one line refuses; any other is a crash.
        right: Whether what ``run`` returned is right; None where nothing but a refusal is.
        named: What a clear error must contain, such as the file's name.
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
class Campaign:
    """A kind of damage.

    Attributes:
        prepare: Makes, in a folder that stays, what all cases share; done once in each process.
        make: Makes case ``number`` of a random generator, in a folder of its own, from what ``prepare`` returned.
    """

    prepare: Callable[[Path], Any]
    make: Callable[[np.random.Generator, int, Path, Any], Case]


def judge(case: Case) -> Outcome:
    """Try a case."""
    try:
        result = case.run()
    except _CLEAR as error:
        text = str(error)
        if text.strip() and case.named in text and type(error) not in (RecursionError, UnicodeDecodeError):
            return Outcome(case.kind, "refused", text)
        return Outcome(case.kind, "crashed", f"no clear error: {traceback.format_exc()}")
    except Exception:
        return Outcome(case.kind, "crashed", traceback.format_exc())
    try:
        if case.right is not None and case.right(result):
            return Outcome(case.kind, "taken", "")
    except Exception:
        return Outcome(case.kind, "wrongly taken", traceback.format_exc())
    return Outcome(case.kind, "wrongly taken", repr(result)[:200])
