from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from video_files import named

from plasm.data import open_source, read_clips
from plasm.data.layouts import ArrayOptions
from plasm.data.limits import FileTooLargeError
from plasm.data.netcdf import _role

xarray = pytest.importorskip("xarray")
pytest.importorskip("h5netcdf")
pytest.importorskip("scipy")

LEVELS = np.random.default_rng(0).integers(0, 200, (6, 12, 16))  # (T, H, W)
PACKED = {"dtype": "u1", "scale_factor": 1 / 200, "add_offset": 0.0, "_FillValue": 255}
# NetCDF-3 has no unsigned bytes.
PACKED_3 = {"dtype": "i2", "scale_factor": 1 / 200, "add_offset": 0.0, "_FillValue": -1}


def write(
    file: Path, values: np.ndarray, dims: tuple[str, ...] = ("time", "y", "x"), kind: str = "h5", **encoding: Any
) -> Path:
    engine, version = ("h5netcdf", "NETCDF4") if kind == "h5" else ("scipy", kind)
    data = xarray.Dataset({"rain": (dims, values)}, coords={"station": ("station", np.arange(3))})
    data.to_netcdf(file, engine=engine, format=version, encoding={"rain": encoding})
    return file


@pytest.mark.parametrize("kind", ["h5", "NETCDF3_CLASSIC", "NETCDF3_64BIT"])
@pytest.mark.parametrize("ending", ["nc", "nc4", "h5"])
def test_scale_offset_and_missing_values(tmp_path: Path, kind: str, ending: str) -> None:
    packed = PACKED if kind == "h5" else PACKED_3
    if ending == "h5" and kind != "h5":
        pytest.skip("no HDF5")
    file = write(tmp_path / f"a.{ending}", LEVELS / 200, kind=kind, **packed)
    np.testing.assert_allclose(read_clips(file, 1)[0, :, 0].numpy(), LEVELS / 200, atol=1e-6)
    values = LEVELS / 200
    values[3:, :2] = np.nan
    write(file, values, kind=kind, **packed)
    with pytest.raises(ValueError, match=rf"a\.{ending} .*row 3.*missing.*fill=0"):
        read_clips(file, 1)
    filled = read_clips(file, 1, fill=0.25)[0, :, 0].numpy()
    np.testing.assert_allclose(filled, np.where(np.isnan(values), 0.25, values), atol=1e-6)
    packed = {"dtype": "i2", "scale_factor": 0.5, "add_offset": 250.0, "_FillValue": -1}
    shifted = write(tmp_path / f"b.{ending}", LEVELS + 250.0, kind=kind, **packed)
    clips = read_clips(shifted, 1, value_range=(250, 450))[0, :, 0].numpy()
    np.testing.assert_allclose(clips, LEVELS / 200, atol=1e-6)


def test_integers_that_may_be_missing_stay_integers(tmp_path: Path) -> None:
    file = write(tmp_path / "a.nc", LEVELS.astype(np.float32), dtype="u1", _FillValue=255)
    np.testing.assert_array_equal(open_source(file, 1)[0].read(0, 6)[..., 0], LEVELS.astype(np.uint8))
    np.testing.assert_allclose(read_clips(file, 1)[0, :, 0].numpy(), LEVELS / 255, atol=1e-6)
    values = LEVELS.astype(np.float32)
    values[0, 0, 0] = np.nan
    write(file, values, dtype="u1", _FillValue=255)
    assert open_source(file, 1, ArrayOptions(fill=7))[0].read(0, 1)[0, 0, 0].tolist() == [7]


@pytest.mark.parametrize("kind", ["h5", "NETCDF3_CLASSIC"])
def test_the_names_of_dimensions_count(tmp_path: Path, kind: str) -> None:
    values = LEVELS / 200
    for dims in (("lat", "lon", "time"), ("Time", "south_north", "west_east"), ("y", "time", "x"), ("t", "nx", "ny")):
        places = {"t": 0, "y": 1, "x": 2}
        kinds = {"lat": "y", "lon": "x", "time": "t", "Time": "t", "south_north": "y", "west_east": "x", "nx": "x",
                 "ny": "y"}  # fmt: skip
        order = [places[kinds.get(dim, dim)] for dim in dims]
        file = write(tmp_path / "a.nc", values.transpose(order), dims, kind)
        (stream,) = open_source(file, 1)
        assert (stream.num_frames, stream.size) == (6, (12, 16))
        np.testing.assert_array_equal(stream.read(1, 2, 2)[..., 0], values[1:4:2])
    file = write(tmp_path / "b.nc", np.stack([values, values / 2], 1), ("time", "band", "y", "x"), kind)
    np.testing.assert_array_equal(open_source(file, 2)[0].read(0, 6)[..., 1], values / 2)
    file = write(tmp_path / "c.nc", values[:, None], ("time", "level", "y", "x"), kind)
    assert open_source(file, 1)[0].num_frames == 6
    file = write(tmp_path / "d.nc", values, ("level", "y", "x"), kind)
    with pytest.raises(ValueError, match=r"d\.nc has the dimensions level \(6\), y \(12\), x \(16\): .*axes=TYX"):
        open_source(file, 1)
    assert open_source(file, 1, ArrayOptions(axes="TYX"))[0].num_frames == 6
    file = write(tmp_path / "e.nc", np.stack([values, values], 1), ("time", "level", "y", "x"), kind)
    with pytest.raises(ValueError, match=r"e\.nc has the dimensions .*level \(2\)"):
        open_source(file, 1)


def test_conventions_say_what_an_axis_is(tmp_path: Path) -> None:
    data = xarray.Dataset(
        {"rain": (("a", "b", "c"), LEVELS.transpose(2, 0, 1) / 200)},
        coords={
            "a": ("a", np.arange(16.0), {"standard_name": "longitude"}),
            "b": ("b", np.arange(6.0), {"units": "hours since 2020-01-01"}),
            "c": ("c", np.arange(12.0), {"axis": "Y"}),
        },
    )
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    np.testing.assert_array_equal(open_source(tmp_path / "a.nc", 1)[0].read(0, 6)[..., 0], LEVELS / 200)


def test_a_name_of_any_length_is_no_role() -> None:
    assert _role("1" * 1_000_000 + "x", {}) is None
    assert _role("time_000017", {}) == "t"


def test_one_of_several_variables_and_groups(tmp_path: Path) -> None:
    both = xarray.Dataset({name: (("time", "y", "x"), LEVELS / 200 / (1 + n)) for n, name in enumerate(["one", "two"])})
    both.to_netcdf(tmp_path / "a.nc", engine="h5netcdf", group="inner")
    both.to_netcdf(tmp_path / "b.nc", engine="scipy")
    for name, prefix in (("a.nc", "inner/"), ("b.nc", "")):
        with pytest.raises(ValueError, match=rf"{name} holds 2 arrays of frames \({prefix}one, {prefix}two\), wanted"):
            open_source(tmp_path / name, 1)
        read = open_source(tmp_path / name, 1, ArrayOptions(array=f"{prefix}two"))[0].read(0, 6)
        np.testing.assert_array_equal(read[..., 0], LEVELS / 200 / 2)
        with pytest.raises(ValueError, match=rf"{name}.*none"):
            open_source(tmp_path / name, 1, ArrayOptions(array="none"))


def test_small_files_of_large_arrays(tmp_path: Path) -> None:
    def save(shape: tuple[int, ...], **more: Any) -> Path:
        with h5py.File(tmp_path / "a.nc", "w") as content:
            content.create_dataset("rain", shape, np.uint8, **more)
        return tmp_path / "a.nc"

    with pytest.raises(FileTooLargeError, match=r"a\.nc"):
        open_source(save((20, 1 << 16, 1 << 16)), 1)[0].read(0, 20)
    with pytest.raises(FileTooLargeError, match=r"a\.nc: 100,000,000 clips"):
        open_source(save((10**8, 2, 1, 8, 8)), 1)
    with h5py.File(tmp_path / "b.nc", "w") as content:
        time = content.create_dataset("time", (10**9,), np.float64, chunks=(10**6,), compression=1)
        time.make_scale("time")
        rain = content.create_dataset("rain", (10**9, 8, 8), np.uint8, chunks=(1000, 8, 8))
        rain.dims[0].attach_scale(time)
    with pytest.raises(FileTooLargeError, match=r"b\.nc: the 1,000,000,000 time"):
        open_source(tmp_path / "b.nc", 1)


@pytest.mark.parametrize("kind", ["h5", "NETCDF3_CLASSIC"])
def test_damage_is_named(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path / "a.nc", LEVELS / 200, kind=kind)
    whole = file.read_bytes()
    for place in range(0, len(whole), len(whole) // 20):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with named("a.nc"):
            open_source(file, 1)[0].read(0, 6)
    for content in (b"", whole[:100], whole[: len(whole) // 2], b"<html>", b"CDF\x05" + bytes(50)):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.nc"):
            open_source(file, 1)[0].read(0, 6)


@pytest.mark.parametrize("target", ["circle", "soft"])
def test_groups_that_lead_back_are_refused_before_another_library_follows_them(tmp_path: Path, target: str) -> None:
    file = tmp_path / "back.nc"
    with h5py.File(file, "w") as content:
        content["g/rain"] = LEVELS
        content["g/up"] = content["/"] if target == "circle" else h5py.SoftLink("/")
    with pytest.raises(ValueError, match=r"back\.nc: (its group g/up is in two places|g/up is a link to a group)"):
        open_source(file, 1)


def test_what_a_library_says_of_its_own_code_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "scales.nc"
    with h5py.File(file, "w") as content:
        content["rain"] = LEVELS
        content["rain"].attrs["DIMENSION_LIST"] = np.array([content["rain"].ref] * 3, dtype=h5py.ref_dtype)
    # h5netcdf does not always stumble at the same place: once in many runs it is over a dimension, which it names.
    with pytest.raises(
        ValueError,
        match=r"scales\.nc is not a whole NetCDF file: (something in it cannot be read|malformed variable rain)",
    ):
        open_source(file, 1)


@pytest.mark.parametrize("kind", ["h5", "NETCDF3_CLASSIC"])
@pytest.mark.parametrize(
    "bounds", [{"valid_range": [0, 199]}, {"valid_min": 0, "valid_max": 199}, {"valid_range": [-7, 199]}]
)
def test_values_outside_the_valid_range_are_missing(tmp_path: Path, kind: str, bounds: dict[str, Any]) -> None:
    stored = LEVELS.astype(np.int16)
    stored[2, 0, 0] = 200
    data = xarray.Dataset({"rain": (("time", "y", "x"), stored)})
    data["rain"].attrs = {"scale_factor": 1 / 200} | {name: np.int16(bound) for name, bound in bounds.items()}
    data.to_netcdf(
        tmp_path / "a.nc", engine="h5netcdf" if kind == "h5" else "scipy", format="NETCDF4" if kind == "h5" else kind
    )
    with pytest.raises(ValueError, match=r"row 2.*missing.*fill=0"):
        read_clips(tmp_path / "a.nc", 1)
    expected = np.where(stored == 200, 0, stored) / 200
    np.testing.assert_allclose(read_clips(tmp_path / "a.nc", 1, fill=0)[0, :, 0].numpy(), expected, atol=1e-6)


def test_a_valid_range_of_integers_without_a_scale(tmp_path: Path) -> None:
    stored = LEVELS.astype(np.uint8)
    stored[2, 0, 0] = 255
    data = xarray.Dataset({"rain": (("time", "y", "x"), stored, {"valid_max": np.uint8(254)})})
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"row 2.*missing.*fill=0"):
        read_clips(tmp_path / "a.nc", 1)
    frames = open_source(tmp_path / "a.nc", 1, ArrayOptions(fill=3))[0].read(0, 6)
    assert frames.dtype == np.uint8
    assert frames[2, 0, 0].tolist() == [3]


@pytest.mark.parametrize("kind", ["h5", "NETCDF3_CLASSIC"])
def test_signed_bytes_that_are_meant_to_be_unsigned_stay_so(tmp_path: Path, kind: str) -> None:
    stored = (LEVELS + 50).astype(np.uint8)
    engine, version = ("h5netcdf", "NETCDF4") if kind == "h5" else ("scipy", kind)
    attributes = {"_Unsigned": "true", "_FillValue": np.int8(-1)}
    data = xarray.Dataset({"rain": (("time", "y", "x"), stored.view(np.int8), attributes)})
    data.to_netcdf(tmp_path / "a.nc", engine=engine, format=version)
    frames = open_source(tmp_path / "a.nc", 1)[0].read(0, 6)
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames[..., 0], stored)
