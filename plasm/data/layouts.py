"""The axes of an array of frames, and the frames in it.

A layout has a letter for each axis: b clips, t frames, c channels, h rows, w columns, and _ for one of length 1 that
is none of these.
"""

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from plasm.files import shown

# What users and microscopes call the axes.
_LETTERS = {"B": "b", "T": "t", "C": "c", "Y": "h", "X": "w"}


@dataclass(frozen=True)
class ArrayOptions:
    """Metadata that a file of arrays lacks.

    Attributes:
        axes: What each axis is, in the order of the file: T frames, C channels, Y rows, X columns, B clips.
        array: Name of the array, of several in a file.
        fill: What is taken for values that are missing: NaN, or what the file says stands for it.

    Raises:
        ValueError: If ``fill`` is no number.
    """

    axes: str | None = None
    array: str | None = None
    fill: float | None = None

    def __post_init__(self) -> None:
        fill: Any = self.fill
        if fill is not None and not isinstance(fill, Real):
            raise ValueError(f"fill is a number, such as 0, got {shown(repr(fill))}")


NO_OPTIONS = ArrayOptions()


def stated_layout(axes: str, shape: tuple[int, ...], name: str) -> str:
    """The layout that a user states; axes of length 1 may be left out. A ValueError if it does not fit the shape."""
    letters = [_LETTERS.get(letter) for letter in str(axes).upper()]
    long = [position for position, size in enumerate(shape) if size > 1]
    if len(letters) == len(shape):
        positions = list(range(len(shape)))
    elif len(letters) == len(long):
        positions = long
    else:
        raise ValueError(f"{name} holds an array of {shape}, and axes={shown(axes)} names {len(letters)} axes")
    if None in letters or len(set(letters)) < len(letters) or not {"h", "w"} <= set(letters):
        raise ValueError(
            f"axes={shown(axes)} should have, in the order of {name}, Y (rows), X (columns) and, where they are, T "
            f"(frames), C (channels) and B (clips), each once"
        )
    named = dict(zip(positions, letters, strict=True))
    return "".join(str(named.get(position, "_")) for position in range(len(shape)))


def layout_of(shape: tuple[int, ...], dtype: np.dtype, channels: int, name: str, axes: str | None = None) -> str:
    """The layout of an array, by what the user says of its axes, or else by its shape.

    An axis of C wanted, or else of 1 to 4, is the channels.

    Raises:
        ValueError: If the array holds no numbers, or the shape could be read in no way or in several.
    """
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        raise ValueError(f"{name} should hold uint8, uint16, or floats in [0, 1]; it holds {shown(dtype)}")
    if 0 in shape:
        raise ValueError(f"{name} holds no frames: an array of {shape}")
    if axes is not None:
        return stated_layout(axes, shape, name)
    layouts = [layout for layout in ("thw", "tchw", "thwc", "btchw", "bthwc") if len(layout) == len(shape)]
    for accepted in ({channels}, {1, 2, 3, 4}):
        fitting = [each for each in layouts if "c" not in each or shape[each.index("c")] in accepted]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            given = " or ".join("axes=" + each.upper().replace("H", "Y").replace("W", "X") for each in fitting)
            raise ValueError(f"{name} holds an array of {shape}, whose axes could be read in two ways: give {given}")
    raise ValueError(
        f"{name} holds an array of {shape}; wanted (T, H, W), (T, C, H, W), (T, H, W, C), (B, T, C, H, W) or (B, T, H, "
        f"W, C) with C = {channels}; another order is given as axes=, such as axes=YXT"
    )


def select_frames(array: np.ndarray, layout: str, clip: int, rows: slice) -> np.ndarray:
    """Frames of one clip of an array in memory or on disk, of which only they are read: (T, H, W, K), native bytes."""
    chosen: dict[str, Any] = {"b": clip, "t": rows, "_": 0}
    frames = np.asarray(array[tuple(chosen.get(letter, slice(None)) for letter in layout)])
    rest = layout.replace("b", "").replace("_", "")
    frames = frames.transpose([rest.index(letter) for letter in "thwc" if letter in rest])
    frames = frames if "t" in rest else frames[None]
    frames = frames if "c" in rest else frames[..., None]
    return frames.astype(frames.dtype.newbyteorder("="), copy=False)


def check_finite(values: np.ndarray, name: str, first: int, step: int = 1, fill: float | None = None) -> np.ndarray:
    """Give values (T, ...) with NaN filled; refuse what else is not finite, which metrics and weights would become.

    Args:
        values: Of floats, or other numbers, which are finite.
        name: Of the file.
        first: Row of the first of them in the file, which an error names.
        step: Rows from one to the next.
        fill: What is taken for NaN, if anything.
    """
    if values.dtype.kind != "f":
        return values
    if fill is not None:
        values = np.where(np.isnan(values), values.dtype.type(fill), values)
    rows = np.isfinite(values).reshape(len(values), -1).all(1)
    if not rows.all():
        row = first + int(rows.argmin()) * step
        raise ValueError(
            f"{name} should hold finite values (of images, in [0, 1]); its {values.dtype} are not finite in row {row:,}"
            ", counted from 0: NaN (missing) or infinite. fill=0 takes 0 for what is missing"
        )
    return values
