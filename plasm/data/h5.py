"""HDF5 files, and the arrays and lists in hickle's .hkl files, which are HDF5. Pickles in them are never read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .extras import require
from .naming import natural_key
from .streams import FrameStream, check_finite, layout_of, to_channels_last

__all__ = ["H5Stream", "hickle_array", "hickle_strings", "open_h5"]


@contextmanager
def open_h5(file: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is no whole HDF5 file.
        ImportError: If h5py is not installed.
    """
    h5py = require("h5py")
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    try:
        content = h5py.File(file, "r")
    except OSError as error:
        raise ValueError(f"{file} is not a whole HDF5 file: {error}") from error
    with content:
        yield content


class H5Stream(FrameStream):
    """Frames of an array in an HDF5 file, read from disk when asked for.

    Args:
        file: The file.
        key: Name of the array in it.
        layout: Order of its axes, as of ``ArrayStream``.
        first: Row of the first frame.
        num_frames: Frames from there on.
        scale: Values that become 0 and 1; None leaves them as they are.
        clip: Which clip, if the layout has a "b".
    """

    def __init__(
        self,
        file: Path,
        key: str,
        layout: str,
        first: int,
        num_frames: int,
        scale: tuple[float, float] | None = None,
        clip: int = 0,
    ) -> None:
        self.file, self.key, self.layout, self.first, self.scale = file, key, layout, first, scale
        self.name, self.num_frames, self.clip = str(file), num_frames, clip
        with open_h5(file) as content:
            shape = dict(zip(layout, content[key].shape, strict=True))
        self.size, self.channels = (shape["h"], shape["w"]), shape.get("c", 1)

    def read(self, start: int, count: int, step: int = 1, gray: bool = False) -> np.ndarray:
        """Read frames; see ``FrameStream``."""
        first = self.first + start
        with open_h5(self.file) as content:
            rows = slice(first, first + (count - 1) * step + 1, step)
            frames: np.ndarray = content[self.key][(self.clip, rows) if self.layout[0] == "b" else rows]
        if self.scale is not None:
            low, high = self.scale
            frames = ((frames - low) / (high - low)).astype(np.float32)
        check_finite(frames, str(self.file), first, step)
        return to_channels_last(frames, self.layout)


def h5_streams(file: Path, channels: int) -> list[H5Stream]:
    """The clips of the one array of frames in an HDF5 (NetCDF-4, hickle) file.

    Args:
        file: The file.
        channels: C wanted, for arrays that could be read in two ways.

    Raises:
        ValueError: If it holds no array of three or more axes, or several, or one that is no frames.
    """
    h5py = require("h5py")
    arrays: dict[str, tuple[tuple[int, ...], np.dtype]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim > 2 and item.dtype.kind in "uif":
            arrays[name] = item.shape, item.dtype

    with open_h5(file) as content:
        content.visititems(visit)
    if len(arrays) != 1:
        names = f" ({', '.join(list(arrays)[:5])})" if arrays else ""
        raise ValueError(f"{file} holds {len(arrays)} arrays of frames{names}, wanted one: write it as .npy")
    ((key, (shape, dtype)),) = arrays.items()
    layout = layout_of(shape, dtype, channels, str(file))
    num_clips, num_frames = shape[0] if layout[0] == "b" else 1, shape[layout.index("t")]
    if not num_frames:
        raise ValueError(f"{file} holds no frames")
    return [H5Stream(file, key, layout, 0, num_frames, clip=clip) for clip in range(num_clips)]


def _hickle_datasets(content: Any, file: Path) -> dict[str, Any]:
    """The HDF5 data sets that hold values; where the type is written depends on hickle's version.

    Raises:
        ValueError: If one of them is a pickle.
    """
    h5py = require("h5py")
    found: dict[str, Any] = {}
    kinds: list[Any] = []

    def visit(name: str, item: Any) -> None:
        kinds.extend(np.ravel(item.attrs.get(key, "")).tolist() for key in ("type", "base_type"))
        if isinstance(item, h5py.Dataset):
            if name.split("/")[-1] == "type":
                kinds.append(np.ravel(item[()]).tolist())
            else:
                found[name] = item

    content.visititems(visit)
    if any(b"pickle" in (kind.encode() if isinstance(kind, str) else kind) for row in kinds for kind in row):
        raise ValueError(f"{file} holds a pickle, which can run any program and is not read")
    return found


def hickle_array(file: Path) -> tuple[str, tuple[int, ...]]:
    """Key and shape of the one array of numbers in a .hkl file.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If it holds none, several, or a pickle.
    """
    with open_h5(file) as content:
        arrays = [
            (name, item.shape)
            for name, item in _hickle_datasets(content, file).items()
            if item.dtype.kind in "uif" and item.ndim > 1
        ]
    if len(arrays) != 1:
        raise ValueError(f"{file} holds {len(arrays)} arrays, wanted one")
    return arrays[0]


def hickle_strings(file: Path) -> list[str]:
    """The list of strings in a .hkl file: one array of them, or one entry each.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If it holds anything else, or a pickle.
    """
    strings: list[str] = []
    with open_h5(file) as content:
        datasets = _hickle_datasets(content, file)
        for name in sorted(datasets, key=natural_key):
            values = np.ravel(datasets[name][()])
            # Newer versions write a string as the bytes of its UTF-8.
            strings += [bytes(values).decode()] if values.dtype == np.uint8 else [_text(v, file) for v in values]
    return strings


def _text(value: Any, file: Path) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        return value
    raise ValueError(f"{file} should hold strings, it holds {value!r}")
