import pickle
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from video_files import write_hickle

from plasm.data.h5 import H5Stream, hickle_array, hickle_strings, open_h5

ARRAY = np.random.default_rng(0).integers(0, 256, (6, 8, 9, 3), dtype=np.uint8)
NAMES = [f"city-{number}" for number in range(12)]


@pytest.mark.parametrize("version", [1, 2, 4])
def test_arrays_and_lists_of_every_version(tmp_path: Path, version: int) -> None:
    array = write_hickle(tmp_path / "X.hkl", ARRAY, version)
    key, shape = hickle_array(array)
    assert shape == ARRAY.shape
    np.testing.assert_array_equal(H5Stream(array, key, "thwc", 1, 5).read(1, 2, 2), ARRAY[2:6:2])
    assert hickle_strings(write_hickle(tmp_path / "s.hkl", NAMES, version)) == NAMES


def test_scale_and_layout(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as content:
        content["data"] = ARRAY.transpose(0, 3, 1, 2)
    frames = H5Stream(tmp_path / "a.h5", "data", "tchw", 0, 6, (0, 255)).read(0, 6)
    np.testing.assert_allclose(frames, ARRAY / 255, rtol=1e-6)


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
    with pytest.raises(ImportError, match=r"pip install 'plasm\[h5\]'"):
        hickle_array(file)
