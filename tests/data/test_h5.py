import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from video_files import named, write_hickle

from plasm.data import FrameFormat, open_source, read_clips
from plasm.data.h5 import H5Stream, hickle_array, hickle_strings, open_h5
from plasm.data.layouts import ArrayOptions
from plasm.data.limits import FileTooLargeError

ARRAY = np.random.default_rng(0).integers(0, 256, (6, 8, 9, 3), dtype=np.uint8)
NAMES = [f"city-{number}" for number in range(12)]


@pytest.mark.parametrize("version", [1, 2, 4])
def test_arrays_and_lists_of_every_version(tmp_path: Path, version: int) -> None:
    array = write_hickle(tmp_path / "X.hkl", ARRAY, version)
    key, shape = hickle_array(array)
    assert shape == ARRAY.shape
    np.testing.assert_array_equal(H5Stream(array, key, "thwc", shape, rows=(1, 5)).read(1, 2, 2), ARRAY[2:6:2])
    assert hickle_strings(write_hickle(tmp_path / "s.hkl", NAMES, version)) == NAMES


def test_layout(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as content:
        content["data"] = ARRAY.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(H5Stream(tmp_path / "a.h5", "data", "tchw", (6, 3, 8, 9)).read(0, 6), ARRAY)


def test_pickles_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "pickle.hkl"
    payload = np.void(pickle.dumps(NAMES))
    with h5py.File(file, "w") as content:
        content["data"], content["type"] = [payload], [b"pickle"]
    for read in (hickle_array, hickle_strings):
        with pytest.raises(ValueError, match="holds a pickle"):
            read(file)
    for attribute in ("type", "base_type"):
        with h5py.File(file, "w") as content:
            content["data_0"] = payload
            content["data_0"].attrs[attribute] = np.bytes_(b"pickle")
        with pytest.raises(ValueError, match="holds a pickle"):
            hickle_strings(file)


def test_errors_say_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="no file"), open_h5(tmp_path / "none.h5"):
        pass
    file = write_hickle(tmp_path / "a.hkl", ARRAY)
    with pytest.raises(ValueError, match=r"b\.hkl should hold strings"):
        hickle_strings(write_hickle(tmp_path / "b.hkl", ARRAY.astype(np.int64)))
    with pytest.raises(ValueError, match="0 arrays"):
        hickle_array(write_hickle(tmp_path / "c.hkl", NAMES))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install 'plasm-video\[h5\]'"):
        hickle_array(file)


def test_what_hickle_itself_writes(tmp_path: Path) -> None:
    """Version 5 writes types as references to pickles, and what occurs again as a reference to the first."""
    hickle = pytest.importorskip("hickle")
    names = ["city-a"] * 30 + ["road-b", "ü"] * 15
    hickle.dump(ARRAY, tmp_path / "x.hkl")
    hickle.dump(names, tmp_path / "s.hkl")
    key, shape = hickle_array(tmp_path / "x.hkl")
    np.testing.assert_array_equal(H5Stream(tmp_path / "x.hkl", key, "thwc", shape).read(0, 6), ARRAY)
    assert shape == ARRAY.shape
    assert hickle_strings(tmp_path / "s.hkl") == names
    hickle.dump(np.array(names), tmp_path / "a.hkl")
    assert hickle_strings(tmp_path / "a.hkl") == names
    (stream,) = open_source(tmp_path / "x.hkl", 3)
    np.testing.assert_array_equal(stream.read(0, 6), ARRAY)
    for value in (slice(1), ["city-a", slice(1)]):
        with pytest.warns(UserWarning, match="serialized"):
            hickle.dump(value, tmp_path / "p.hkl")
        for read in (hickle_array, hickle_strings):
            with pytest.raises(ValueError, match=r"p\.hkl holds a pickle"):
                read(tmp_path / "p.hkl")


def elsewhere(folder: Path) -> Iterator[Callable[[h5py.Group], object]]:
    """Ways to let an array's values lie in other files."""
    (folder / "secret").write_bytes(bytes(range(256)) * 9)
    with h5py.File(folder / "other.h5", "w") as other:
        other["data"] = ARRAY
    layout = h5py.VirtualLayout((6, 8, 9, 3), np.uint8)
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "data", (6, 8, 9, 3))
    endless = h5py.VirtualLayout((6, 8, 9, 3), np.uint8, maxshape=(None, 8, 9, 3))
    source = h5py.VirtualSource(str(folder / "other.h5"), "data", (6, 8, 9, 3), maxshape=(None, 8, 9, 3))
    endless[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]

    def external(group: h5py.Group) -> object:
        return group.create_dataset("data", (4, 24, 24), np.uint8, external=[(str(folder / "secret"), 0, 2304)])

    def link(group: h5py.Group) -> None:
        group["data"] = h5py.ExternalLink(str(folder / "other.h5"), "data")

    yield external
    yield lambda group: group.create_virtual_dataset("data", layout)
    yield lambda group: group.create_virtual_dataset("data", endless)
    yield link


@pytest.mark.parametrize("ending", ["h5", "hkl", "nc"])
def test_values_in_other_files_are_refused(tmp_path: Path, ending: str) -> None:
    for number, write in enumerate(elsewhere(tmp_path)):
        file = tmp_path / f"{number}.{ending}"
        with h5py.File(file, "w") as content:
            write(content)
        with pytest.raises(ValueError, match=rf"{number}\.{ending}.*(other file|another file|0 arrays)"):
            open_source(file, 3)
        with pytest.raises(ValueError, match=rf"{number}\.{ending}.*(other files|another file)"):
            open_source(file, 3, ArrayOptions(array="data"))
        for read in (hickle_array, hickle_strings):
            if number < 3:
                with pytest.raises(ValueError, match="other files"):
                    read(file)


def test_small_files_of_large_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(shape: tuple[int, ...], **options: object) -> Path:
        with h5py.File(tmp_path / "a.h5", "w") as content:
            content.create_dataset("data", shape, np.uint8, **options)
        return tmp_path / "a.h5"

    file = write((20, 1 << 16, 1 << 16))
    (stream,) = open_source(file, 1)
    with pytest.raises(FileTooLargeError, match=r"a\.h5.*80 GiB"):
        stream.read(0, 20)
    with pytest.raises(FileTooLargeError, match=r"a\.h5: 100,000,000 clips"):
        open_source(write((10**8, 2, 1, 8, 8)), 1)
    (stream,) = open_source(write((10**9, 8, 8), chunks=(1000, 8, 8)), 1)
    assert not stream.read(10**8, 2).any()
    with pytest.raises(FileTooLargeError, match=r"a\.h5"):
        read_clips(file, 1)
    monkeypatch.setenv("PLASM_READ_LIMIT", "1")
    with pytest.raises(FileTooLargeError, match=r"a\.h5"):
        open_source(write((10**5, 256, 256), chunks=(65535, 256, 255), compression=1), 1)[0].read(0, 1)


def test_damage_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as content:
        content.create_dataset("data", data=ARRAY[..., 0], chunks=(1, 8, 9), compression=9)
    whole = (tmp_path / "a.h5").read_bytes()
    places = range(0, len(whole), max(1, len(whole) // 100))
    taken = 0
    for place in places:
        (tmp_path / "a.h5").write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with named("a.h5"):
            read_clips(tmp_path / "a.h5", 1)
            taken += 1
    # HDF5 has no checksum of all of it; what tells of the array is noticed.
    assert taken < len(places)


def test_a_filter_that_is_not_installed_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.h5"
    with h5py.File(file, "w") as content:
        content.create_dataset("data", data=ARRAY[..., 0], chunks=(1, 8, 9), compression=9)
    whole = file.read_bytes()
    place = whole.index(b"deflate") - 8
    file.write_bytes(whole[:place] + (40_000).to_bytes(2, "little") + whole[place + 2 :])
    with pytest.raises(
        ValueError, match=r"a\.h5: /data is compressed by the HDF5 filter 40000 .* not installed: write"
    ):
        read_clips(file, 1)


def test_big_endian_and_axes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as content:
        content["data"] = (ARRAY[..., 0] * 257.0).astype(">u2").transpose(1, 2, 0)
        content["other"] = ARRAY
    (stream,) = open_source(tmp_path / "a.h5", 1, ArrayOptions(axes="YXT", array="data"))
    np.testing.assert_array_equal(stream.read(1, 2, 2)[..., 0], ARRAY[1:4:2, ..., 0] * np.uint16(257))
    clips = FrameFormat(1)(stream.read(0, 6), "a")
    np.testing.assert_allclose(clips[:, 0].numpy(), ARRAY[..., 0] / 255, atol=1e-6)


@pytest.mark.parametrize("ending", ["h5", "hkl", "nc"])
def test_groups_without_end_are_refused_at_once(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"deep.{ending}"
    with h5py.File(file, "w") as content:
        content["/".join(["g"] * 40)] = ARRAY[..., 0]
    with pytest.raises(ValueError, match=f"{file.name} is damaged: its groups are nested deeper than 32 times"):
        open_source(file, 1)


def test_a_group_in_itself_is_no_matter(tmp_path: Path) -> None:
    file = tmp_path / "circle.h5"
    with h5py.File(file, "w") as content:
        content["g/a"] = ARRAY[..., 0]
        content["g/up"] = content["/"]
        content["g/soft"] = h5py.SoftLink("/g")
    assert open_source(file, 1)[0].num_frames == 6
