"""Arrays of frames in .npy and .npz files, mapped where they are not compressed. Pickles in them are never read."""

import math
import os
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from plasm.files import shown

from .layouts import NO_OPTIONS, ArrayOptions, layout_of, select_frames
from .limits import check_bytes
from .reading import reading
from .streams import ClipStream, clips_of

# numpy's own limit for headers of files that are not trusted.
_LONGEST_HEADER = 10_000
# Bytes that numpy counts to.
_LARGEST = 2**63 - 1
# Bytes of unpacked arrays that are kept, unless one alone has more.
_KEPT_BYTES = 1 << 28
_unpacked: OrderedDict[tuple[str, str, int, int], np.ndarray] = OrderedDict()


class ArrayStream(ClipStream):
    """Frames of a .npy or .npz file, mapped where they are not compressed; see ``ClipStream``."""

    def _read(self, rows: slice, count: int) -> np.ndarray:
        return select_frames(load_array(self.file, self.key), self.layout, self.clip, rows)


def array_streams(file: Path, channels: int, options: ArrayOptions = NO_OPTIONS) -> list[ArrayStream]:
    """The clips of the array in a .npy, or of the only or the named one in an .npz; see ``open_source``."""
    with _opened(file, options.array) as (content, info):
        shape, _, dtype = _array_header(content, file)
    if not _is_packed(info):
        # Mapping it shows whether all of it is there.
        load_array(file, options.array)
    layout = layout_of(shape, dtype, channels, str(file), options.axes)
    clips = clips_of(layout, shape, str(file))
    return [ArrayStream(file, options.array, layout, shape, clip, options.fill) for clip in clips]


def load_array(file: Path, member: str | None = None) -> np.ndarray:
    """The array of a .npy, or the only or the named one of an .npz: mapped, or unpacked if it is compressed.

    The errors are those of ``reading``, and a FileTooLargeError of an array that is too large to be unpacked.
    """
    with _opened(file, member) as (content, info):
        shape, fortran, dtype = _array_header(content, file)
        size = math.prod(shape) * dtype.itemsize
        if info is not None and _is_packed(info):
            return _unpack(content, file, info, shape, fortran, dtype)
        start = content.tell()
        if info is not None:
            start += _member_start(file, info)
        if start + size > (os.fstat(content.fileno()) if info is None else file.stat()).st_size:
            raise ValueError(f"{file} is not a whole file: it ends before the {size:,} bytes of its array")
        source = content if info is None else file
        return np.memmap(source, dtype, "r", start, shape, "F" if fortran else "C") if size else np.empty(shape, dtype)


@contextmanager
def _opened(file: Path, member: str | None) -> Iterator[tuple[IO[bytes], zipfile.ZipInfo | None]]:
    """The content of an array, and its entry if it is in an .npz."""
    packed = file.suffix.lower() == ".npz"
    with reading(file, f"a whole {'.npz' if packed else '.npy'} file of numbers"):
        if not packed:
            with file.open("rb") as content:
                yield content, None
            return
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            if not names:
                raise ValueError(f"{file} holds no arrays, wanted one: numpy.savez writes them")
            if member is None and len(names) != 1:
                known = ", ".join(shown(name.removesuffix(".npy")) for name in names[:5])
                raise ValueError(f"{file} holds {len(names)} arrays ({known}), wanted one: give array=NAME")
            if member is not None and (count := names.count(f"{member}.npy")) != 1:
                raise ValueError(f"{file} holds {count or 'no'} array{'s' if count else ''} {member}, wanted one")
            info = archive.getinfo(names[0] if member is None else f"{member}.npy")
            with archive.open(info) as content:
                yield content, info


def _is_packed(info: zipfile.ZipInfo | None) -> bool:
    return info is not None and info.compress_type != zipfile.ZIP_STORED


def _member_start(file: Path, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a member that is not compressed begin."""
    with file.open("rb") as handle:
        # They follow a local header of 30 bytes, the name, and extra bytes of which only it knows the number.
        handle.seek(info.header_offset + 26)
        name_length, extra_length = struct.unpack("<2H", handle.read(4))
    return int(info.header_offset + 30 + name_length + extra_length)


def _array_header(content: IO[bytes], file: Path) -> tuple[tuple[int, ...], bool, np.dtype]:
    # numpy has one function for each version of its header, and no public one that chooses.
    version = np.lib.format.read_magic(content)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{file} holds an array of the unknown format {version}")
    start = content.tell()
    length = int.from_bytes(content.read(2 if version == (1, 0) else 4), "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"{file} is damaged: its header says that it has {length:,} bytes")
    content.seek(start)
    shape, fortran, dtype = readers[version](content)
    if dtype.hasobject:
        raise ValueError(f"{file} holds Python objects (a pickle), which are not read")
    if min(shape, default=0) < 0 or math.prod(filter(None, shape)) * dtype.itemsize > _LARGEST:
        raise ValueError(f"{file} is damaged: it holds an array of {shown(shape)}")
    return shape, fortran, dtype


def _unpack(
    content: IO[bytes], file: Path, info: zipfile.ZipInfo, shape: tuple[int, ...], fortran: bool, dtype: np.dtype
) -> np.ndarray:
    """Unpack an array, once for all clips that are in it."""
    status = file.stat()
    key = str(file), info.filename, status.st_mtime_ns, status.st_size
    if key in _unpacked:
        _unpacked.move_to_end(key)
        return _unpacked[key]
    count = math.prod(shape)
    check_bytes(count * dtype.itemsize, str(file), f"its array of {shape}, compressed,")
    array = np.empty(count, dtype)
    rest = array.view(np.uint8).data if array.nbytes else memoryview(b"")
    while rest:
        got = content.readinto(rest[: 1 << 20])  # type: ignore[attr-defined]
        if not got:
            raise ValueError(f"{file} is damaged: its array of {shape} ends early")
        rest = rest[got:]
    # Only at its end the checksum is compared.
    content.read(1)
    array = array.reshape(shape, order="F" if fortran else "C")
    array.flags.writeable = False
    while _unpacked and array.nbytes + sum(kept.nbytes for kept in _unpacked.values()) > _KEPT_BYTES:
        _unpacked.popitem(last=False)
    _unpacked[key] = array
    return array
