"""A limit on the memory that reading may take: small files can declare frames that no machine holds."""

import math
import os

ENVIRONMENT = "PLASM_READ_LIMIT"
_DEFAULT = 4.0
_GIB = 1 << 30


class FileTooLargeError(ValueError):
    """Reading would take more memory than is allowed."""


def read_limit() -> float:
    """Bytes that one clip, or one frame, may take while it is read.

    The environment variable PLASM_READ_LIMIT gives it in GiB, "inf" for none; 4 by default.

    Raises:
        ValueError: If it is no positive number.
    """
    text = os.environ.get(ENVIRONMENT) or str(_DEFAULT)
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not limit > 0:
        raise ValueError(f"{ENVIRONMENT} is a limit in GiB, such as 16, or inf for none, got {text!r}")
    return limit * _GIB


def check_bytes(needed: int, name: str, what: str) -> None:
    """Refuse what would take more memory than the limit. Called before anything of that size is made.

    Args:
        needed: Bytes, all arrays that are held at the same time counted.
        name: Of the file, for the error.
        what: It is that takes them, such as "20 frames of 16000x16000".
    """
    limit = read_limit()
    if needed > limit:
        raise FileTooLargeError(
            f"{name}: {what} would take {_size(needed)} of memory, the limit is {_size(limit)}. Use fewer or smaller "
            f"frames, or set the environment variable {ENVIRONMENT} to as many GiB as may be taken"
        )


def _size(count: float) -> str:
    return f"{count / _GIB:,.3g} GiB" if count < 1000 * _GIB else f"{count / _GIB:,.0f} GiB"
