"""HDF5 files, and the arrays and lists in hickle's .hkl files, which are HDF5. Pickles in them are never read."""

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from plasm.files import require, shown

from .layouts import NO_OPTIONS, ArrayOptions, layout_of, select_frames
from .limits import check_bytes
from .naming import natural_key
from .reading import reading
from .streams import ClipStream, clips_of

# Where hickle 5 keeps the types of all that is in a file, as pickles, which are not read.
_TYPES = "hickle_types_table"
# Groups in groups: HDF5 finds its way through thousands of them only in minutes.
_DEEPEST = 32


@contextmanager
def open_h5(file: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading, with the errors of ``reading`` while it is open."""
    h5py = require("h5py")
    with reading(file, "a whole HDF5 file"), h5py.File(file, "r") as content:
        yield content


def _check_own(dataset: Any, file: Path) -> None:
    """Refuse an array whose values lie in other files: any file of the machine could be named.

    Called before anything else is read of it: for its shape alone HDF5 may open the others.
    """
    if dataset.is_virtual or dataset.external:
        raise ValueError(
            f"{file}: the values of {shown(dataset.name)} lie in other files (external or virtual), which are not "
            f"opened; write them into one file"
        )


def _check_filters(dataset: Any, file: Path) -> None:
    """Refuse an array that is compressed by what is not installed; HDF5 would tell of its folder of plugins."""
    h5py = require("h5py")
    properties = dataset.id.get_create_plist()
    for position in range(properties.get_nfilters()):
        number, _, _, name = properties.get_filter(position)
        if not h5py.h5z.filter_avail(number):
            raise ValueError(
                f"{file}: {shown(dataset.name)} is compressed by the HDF5 filter {number} "
                f"({shown(name.decode('latin-1'))}), which is not installed: write it with gzip, or without compression"
            )


def h5_dataset(content: Any, key: str, file: Path) -> Any:
    """An array that an HDF5 file holds itself; a ValueError if there is none of that name, or it is another file's."""
    h5py = require("h5py")
    item = content
    for part in key.strip("/").split("/"):
        link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
        if isinstance(link, h5py.ExternalLink):
            raise ValueError(f"{file}: {shown(key)} is a link to another file, which is not opened")
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{file} holds no array {shown(key)}")
        item = item[part]
    if not isinstance(item, h5py.Dataset):
        raise ValueError(f"{file} holds no array {shown(key)}")
    _check_own(item, file)
    _check_filters(item, file)
    return item


def h5_values(content: Any, key: str, file: Path) -> np.ndarray:
    """All values of an array, if they are not too many."""
    dataset = h5_dataset(content, key, file)
    check_bytes(_bytes(dataset.shape, dataset), str(file), f"the array {shown(key)} of {dataset.shape}")
    values: np.ndarray = np.asarray(dataset[()])
    return values


def _bytes(shape: tuple[int, ...], dataset: Any) -> int:
    """What reading values of this shape takes; values are unpacked a whole chunk at a time."""
    return max(math.prod(shape), math.prod(dataset.chunks or ())) * int(dataset.dtype.itemsize)


class H5Stream(ClipStream):
    """Frames of an array in an HDF5 file, read from disk on access; see ``ClipStream``."""

    def _read(self, rows: slice, count: int) -> np.ndarray:
        with open_h5(self.file) as content:
            dataset = h5_dataset(content, self.key or "", self.file)
            needed = _bytes((count, *self.size, self.channels), dataset)
            check_bytes(needed, self.name, f"{count:,} frames of {self.size[1]}x{self.size[0]}")
            return select_frames(dataset, self.layout, self.clip, rows)


def walk(content: Any, file: Path, strict: bool = False) -> Iterator[tuple[str, Any]]:
    """The groups and arrays of an HDF5 file with their names, each once; links are not followed.

    With ``strict``, for a library that follows them, links to other files and to groups that are met twice are refused.

    Raises:
        ValueError: If groups are nested too deeply, or the values of an array lie in another file.
    """
    h5py = require("h5py")
    seen = {h5py.h5o.get_info(content.id).addr}
    groups = deque([("", content, 1)])
    while groups:
        prefix, group, depth = groups.popleft()
        if depth > _DEEPEST:
            raise ValueError(f"{file} is damaged: its groups are nested deeper than {_DEEPEST} times")
        for key in group:
            name, link = f"{prefix}{key}", group.get(key, getclass=True, getlink=True)
            if strict and link is h5py.ExternalLink:
                raise ValueError(f"{file}: {shown(name)} is a link to another file, which is not opened")
            if link is not h5py.HardLink:
                if strict and group.get(key, getclass=True) is h5py.Group:
                    raise ValueError(f"{file}: {shown(name)} is a link to a group, which is not followed")
                continue
            item = group[key]
            position = h5py.h5o.get_info(item.id).addr
            if position in seen:
                if strict and isinstance(item, h5py.Group):
                    raise ValueError(f"{file}: its group {shown(name)} is in two places")
                continue
            seen.add(position)
            if isinstance(item, h5py.Dataset):
                _check_own(item, file)
            elif isinstance(item, h5py.Group):
                groups.append((f"{name}/", item, depth + 1))
            yield name, item


def check_alone(content: Any, file: Path) -> None:
    """Check an HDF5 file before a library that follows its links, and reads the coordinates along its axes whole.

    The errors are those of ``walk``, and a FileTooLargeError of a coordinate that would take more memory than the
    limit.
    """
    h5py = require("h5py")
    for name, item in walk(content, file, strict=True):
        if isinstance(item, h5py.Dataset) and len(item.shape or ()) == 1:
            check_bytes(int(item.size) * max(8, item.dtype.itemsize), str(file), f"the {item.size:,} {shown(name)}")


def find_arrays(content: Any, file: Path) -> dict[str, Any]:
    """The arrays of three or more axes, and of numbers, in an HDF5 file; see ``walk``."""
    h5py = require("h5py")
    return {
        name: item
        for name, item in walk(content, file)
        if isinstance(item, h5py.Dataset) and len(item.shape or ()) > 2 and item.dtype.kind in "buif"
    }


def choose_array(names: list[str], file: Path, wanted: str | None) -> str:
    """The name of the array that is wanted, or of the only one; a ValueError of none or several."""
    if wanted is not None:
        return str(wanted)
    if len(names) == 1:
        return names[0]
    found = f" ({', '.join(map(shown, names[:5]))})" if names else ""
    hint = "wanted one: give array=NAME" if names else "wanted one of three or more axes"
    raise ValueError(f"{file} holds {len(names)} arrays of frames{found}, {hint}")


def h5_streams(file: Path, channels: int, options: ArrayOptions = NO_OPTIONS) -> list[H5Stream]:
    """The clips of the one array of frames in an HDF5 (or hickle) file, or of the one that is named.

    It has three or more axes; see ``open_source``.
    """
    with open_h5(file) as content:
        key = choose_array(list(find_arrays(content, file)), file, options.array)
        dataset = h5_dataset(content, key, file)
        shape = dataset.shape or ()
        layout = layout_of(shape, dataset.dtype, channels, str(file), options.axes)
    clips = clips_of(layout, shape, str(file))
    return [H5Stream(file, key, layout, shape, clip, options.fill) for clip in clips]


def _hickle_datasets(content: Any, file: Path) -> dict[str, Any]:
    """The HDF5 data sets that hold values; a ValueError of a pickle. Where types are written depends on the version."""
    h5py = require("h5py")
    found: dict[str, Any] = {}
    kinds: list[Any] = []
    # Its newest version gives everything a type, but for pickles and what is stored a second time.
    typed = str(content.attrs.get("HICKLE_VERSION", "")).startswith("5")

    for name, item in walk(content, file):
        if name.split("/")[0] == _TYPES:
            continue
        for key in ("type", "base_type"):
            kind = item.attrs.get(key, "")
            kinds.extend(np.ravel("" if isinstance(kind, h5py.Reference) else kind).tolist())
        if not isinstance(item, h5py.Dataset) or item.shape is None:
            continue
        if name.split("/")[-1] == "type":
            kinds.extend(np.ravel(h5_values(content, name, file)).tolist())
            continue
        found[name] = item
        if typed and "type" not in item.attrs and item.dtype.kind == "u":
            kinds.append("pickle")
    if any("pickle" in (kind.decode("latin-1") if isinstance(kind, bytes) else str(kind)) for kind in kinds):
        raise ValueError(f"{file} holds a pickle, which can run any program and is not read")
    return found


def hickle_array(file: Path) -> tuple[str, tuple[int, ...]]:
    """Key and shape of the one array of numbers in a .hkl file; a ValueError of none, several, or a pickle."""
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
    """The list of strings in a .hkl file: one array of them, or one entry each; a ValueError of anything else."""
    h5py = require("h5py")
    strings: list[str] = []
    with open_h5(file) as content:
        datasets = _hickle_datasets(content, file)
        for name in sorted(datasets, key=natural_key):
            dataset = datasets[name]
            if h5py.check_ref_dtype(dataset.dtype) is not None:
                # What occurs several times is stored once.
                (reference,) = np.ravel(h5_values(content, name, file)).tolist()
                dataset = content[reference]
            values = np.ravel(h5_values(content, str(dataset.name), file))
            # Newer versions write a string as the bytes of its UTF-8.
            if values.dtype == np.uint8 or "str_type" in dataset.attrs:
                values = np.array([values.tobytes()], object)
            if wrong := [value for value in values if not isinstance(value, bytes | str)]:
                raise ValueError(f"{file} should hold strings, it holds {shown(repr(wrong[0]))}")
            strings += [value.decode() if isinstance(value, bytes) else value for value in values]
    return strings
