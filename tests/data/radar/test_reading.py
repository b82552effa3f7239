import gzip
import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from radar_files import FORMATS, START, STEP, STEREO, knmi, mrms, netcdf, odim, storm, write_event

from plasm.data.limits import FileTooLargeError
from plasm.data.radar import ReadOptions, open_frames, open_sequence
from plasm.data.radar.frames import to_rate
from plasm.data.radar.grid import Grid

h5py = pytest.importorskip("h5py")
pytest.importorskip("pyproj")
xarray = pytest.importorskip("xarray")
eccodes = pytest.importorskip("eccodes")
rasterio = pytest.importorskip("rasterio")

# Half a dBZ is 7.5 % of a rate; 16 bits of a rate in hundredths less.
TOLERANCE = {"fmi": (0.05, 0.02), "knmi": (0, 0.07), "mrms": (0, 0.01), "odim": (0, 0.006), "netcdf": (0, 0.006)}


def change(file: Path, group: str, name: str, value: object) -> None:
    with h5py.File(file, "r+") as content:
        content[group].attrs[name] = value


@pytest.mark.parametrize("kind", FORMATS)
def test_rates_times_and_grid_of_every_format(tmp_path: Path, kind: str) -> None:
    write_event(tmp_path, kind, count=3)
    event = open_sequence(tmp_path)
    assert [frame.time for frame in event.frames] == [START, START + STEP, START + 2 * STEP]
    assert event.minutes == 5
    assert event.grid.km == pytest.approx(1, rel=0.12)
    rtol, atol = TOLERANCE.get(kind, (1e-6, 0))
    for number, rate in enumerate(event.rates()):
        expected = storm(number)
        assert rate.dtype == np.float32
        assert np.array_equal(np.isnan(rate), np.isnan(expected))
        assert (rate[expected == 0] == 0).all()  # dry is not missing
        np.testing.assert_allclose(rate, expected, rtol=rtol, atol=atol)
    y, x = event.grid.y, event.grid.x
    assert (np.diff(y) < 0).all()
    assert (np.diff(x) > 0).all()
    assert (len(y), len(x)) == (48, 40)


def test_where_the_cells_lie(tmp_path: Path) -> None:
    grids = {kind: open_sequence(write_event(tmp_path / kind, kind, 1)[0]).grid for kind in FORMATS}
    assert (grids["odim"].left, grids["odim"].top) == pytest.approx((-50_000, -4_000_000 + 48_000), abs=1)
    assert (grids["knmi"].left, grids["knmi"].top) == (0, -3_650_000)
    assert "+a=6378137 " in grids["knmi"].projection
    assert (grids["mrms"].x[0], grids["mrms"].y[0]) == pytest.approx((-129.995, 54.995))
    assert grids["mrms"].unit == "degrees"
    assert grids["mrms"].km == pytest.approx(1.112, abs=0.001)
    assert (grids["geotiff"].left, grids["geotiff"].top) == (4_000_000, 3_000_000)
    assert grids["netcdf"].y[0] == -4_000_000 + 47_000
    assert "+lon_0=10" in grids["netcdf"].projection
    # FMI's own corners, which are those of its whole composite.
    assert grids["fmi"].left == pytest.approx(-380_886.31, abs=0.1)


def test_reflectivity_becomes_rain_by_the_files_own_relation(tmp_path: Path) -> None:
    rate = np.full((4, 4), 10.0, np.float32)
    for how in ({}, {"zr_a": 300.0, "zr_b": 1.4}):
        file = odim(tmp_path, START, rate, "DBZH", **how)
        (frame,) = open_frames(file) or []
        np.testing.assert_allclose(frame.load(), rate, rtol=0.05)
    (other,) = open_frames(file, ReadOptions(zr=(200, 1.6))) or []
    assert other.load()[0, 0] == pytest.approx((300 * 10**1.4 / 200) ** (1 / 1.6), rel=0.05)


def test_an_accumulation_is_divided_by_its_own_time(tmp_path: Path) -> None:
    file = odim(tmp_path, START, np.full((4, 4), 3.0, np.float32))
    with h5py.File(file, "r+") as content:
        said = content["dataset1/data1/what"].attrs
        said["quantity"] = np.bytes_("ACRR")
        for name, time in (("start", START - 3 * STEP), ("end", START)):
            said[f"{name}date"], said[f"{name}time"] = np.bytes_(f"{time:%Y%m%d}"), np.bytes_(f"{time:%H%M%S}")
    (frame,) = open_frames(file) or []
    assert frame.load()[0, 0] == pytest.approx(12)
    assert "15 minutes" in frame.quantity
    change(knmi_file := knmi(tmp_path, START, np.full((4, 4), 3.0, np.float32)), "overview", "product_datetime_start",
           np.array(["14-JUL-2021;11:50:00.000"], "S25"))  # fmt: skip
    (frame,) = open_frames(knmi_file) or []
    assert frame.load()[0, 0] == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("mm h-1", 1), ("mm/hr", 1), ("mm h^-1", 1), ("kg m-2 s-1", 3600), ("kg m**-2 s**-1", 3600),
     ("kg m^-2 s^-1", 3600), ("m s-1", 3.6e6), ("kg/m2/s", 3600), ("mm", 12), ("kg m-2", 12)],
)  # fmt: skip
def test_units_in_any_spelling(tmp_path: Path, unit: str, factor: float) -> None:
    rate = to_rate(np.array([1.0, np.nan, -2.0]), unit, tmp_path, hours=1 / 12)
    assert rate.tolist() == pytest.approx([factor, np.nan, 0], nan_ok=True)
    with pytest.raises(ValueError, match="no unit of rain"):
        to_rate(np.zeros(1), "m s-2", tmp_path)


def test_a_text_of_any_length_is_no_unit(tmp_path: Path) -> None:
    for text in ("z" * 1_000_000, " " * 1_000_000 + "z"):
        with pytest.raises(ValueError, match="no unit of rain") as refused:
            to_rate(np.ones(2), text, tmp_path / "x.nc")
        assert len(str(refused.value)) < 500


def test_one_netcdf_file_may_hold_all_frames(tmp_path: Path) -> None:
    times = [np.datetime64(START + number * STEP) for number in range(4)]
    rates = np.stack([storm(number) for number in range(4)]) / 3600
    for format in ("NETCDF4", "NETCDF3_64BIT"):
        file = tmp_path / f"{format}.nc"
        content = xarray.Dataset({"flux": (("t", "lat", "lon"), rates, {"units": "kg m-2 s-1"})}, {
            "t": times, "lat": ("lat", 50 - 0.01 * np.arange(48), {"units": "degrees_north"}),
            "lon": ("lon", 5 + 0.01 * np.arange(40), {"units": "degrees_east"})})  # fmt: skip
        content["other"] = (("lat", "lon"), np.zeros((48, 40)), {"units": "K"})
        content.to_netcdf(file, engine="netcdf4", format=format)
        event = open_sequence(file)
        assert len(event) == 4
        assert event.minutes == 5
        assert event.grid.unit == "degrees"
        np.testing.assert_allclose(event.rates(1, 2, 2)[1], storm(3), rtol=1e-5)


@pytest.mark.parametrize(("units", "start"), [("days since 1970-01-01", 18_822.5), ("hours since 2021-07-14", 12.0)])
def test_times_in_parts_of_days_are_rounded_to_seconds(tmp_path: Path, units: str, start: float) -> None:
    # 12:05 is 12:04:59.9999 in the one, some other times a few milliseconds early in the other.
    hours = units.startswith("hours")
    times = (start + np.arange(12) * 5 / (60 if hours else 1440)).astype(np.float32 if hours else np.float64)
    rates = ("time", "y", "x"), np.stack([storm(number) for number in range(12)]), {"units": "mm h-1"}
    content = xarray.Dataset({"rate": rates}, {"time": ("time", times, {"units": units})})
    content.to_netcdf(tmp_path / "event.nc", engine="netcdf4", format="NETCDF3_CLASSIC")
    event = open_sequence(tmp_path / "event.nc")
    assert [frame.time for frame in event.frames] == [START + number * STEP for number in range(12)]


def test_gzipped_grib_and_several_messages(tmp_path: Path) -> None:
    whole = b"".join(mrms(tmp_path, START + n * STEP, storm(n)).read_bytes() for n in range(3))
    file = tmp_path / "all" / "rates.grib2.gz"
    file.parent.mkdir()
    file.write_bytes(gzip.compress(whole))
    event = open_sequence(file.parent)
    assert len(event) == 3
    np.testing.assert_allclose(event.rates()[2], storm(2), atol=0.01)


@pytest.mark.parametrize("packed", [False, True])
def test_the_length_of_a_grib_message_is_checked_before_it_is_read(tmp_path: Path, packed: bool) -> None:
    whole = [mrms(tmp_path, START + n * STEP, storm(n)).read_bytes() for n in range(2)]
    file = tmp_path / "all" / ("rates.grib2.gz" if packed else "rates.grib2")
    file.parent.mkdir()
    # The mark of the second message lies across two blocks of those that are searched.
    junk = bytes((1 << 16) - 2)

    def write(second: bytes) -> None:
        content = whole[0] + junk + second
        file.write_bytes(gzip.compress(content) if packed else content)

    write(whole[1])
    event = open_sequence(file.parent)
    assert len(event) == 2
    np.testing.assert_allclose(event.rates()[1], storm(1), atol=0.01)
    for head in (b"GRIB\0\0\0\2" + (1 << 40).to_bytes(8, "big"), b"GRIB\xff\xff\xff\1"):
        write(head + whole[1][16:])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PLASM_READ_LIMIT", "0.5")
            with pytest.raises(FileTooLargeError, match=r"rates\.grib2.*: a message in it would take"):
                open_sequence(file.parent)


def test_a_gap_is_said(tmp_path: Path) -> None:
    write_event(tmp_path, count=6)[3].unlink()
    with pytest.raises(ValueError, match=r"gap from 2021-07-14 12:10.*no frame of 2021-07-14 12:15"):
        open_sequence(tmp_path)


def test_what_is_mixed_is_said(tmp_path: Path) -> None:
    files = write_event(tmp_path, count=4)
    late = START + 3 * STEP + timedelta(minutes=3)
    odd = odim(tmp_path, late, storm(4))
    with pytest.raises(ValueError, match=r"mixes steps: 5 minutes, and 3 minutes from 2021-07-14 12:15"):
        open_sequence(tmp_path)
    odd.unlink()
    odd = odim(tmp_path, START + 4 * STEP, storm(4, width=41))
    with pytest.raises(ValueError, match=r"grids are mixed: .*1200.h5 and .*1220.h5 have 48 x 40 cells and 48 x 41"):
        open_sequence(tmp_path)
    odd.unlink()
    odim(tmp_path, START + 4 * STEP, storm(4), "DBZH")
    with pytest.raises(ValueError, match=r"quantities are mixed: rain rate in .*reflectivity, Z = 200 R"):
        open_sequence(tmp_path)
    odim(tmp_path, START + 4 * STEP, storm(4))
    shutil.copy(files[0], tmp_path / "copy.h5")
    with pytest.raises(ValueError, match="two frames are of 2021-07-14 12:00"):
        open_sequence(tmp_path)


def test_the_time_of_a_name(tmp_path: Path) -> None:
    (file,) = write_event(tmp_path, "geotiff", 1)
    assert open_sequence(file).frames[0].time == START
    other = file.rename(tmp_path / "20210714_1205_made_202107150000.tif")
    with pytest.raises(ValueError, match=r"says no time itself, and its name has 2"):
        open_sequence(other)
    assert open_sequence(other, ReadOptions(pattern="%Y%m%d_%H%M_made_202107150000.tif")).frames[0].time == START + STEP
    with pytest.raises(ValueError, match="its name has none"):
        open_sequence(other.rename(tmp_path / "rain.tif"))


def test_other_quantities_are_refused_by_name(tmp_path: Path) -> None:
    file = odim(tmp_path, START, storm(0))
    change(file, "dataset1/data1/what", "quantity", np.bytes_("VRADH"))
    with pytest.raises(ValueError, match=r"1200.h5 holds VRADH, wanted one of RATE"):
        open_sequence(file)
    change(file, "what", "object", np.bytes_("PVOL"))
    with pytest.raises(ValueError, match="PVOL, wanted a composite"):
        open_sequence(file)
    file = netcdf(tmp_path, START, storm(0))
    change(file, "rr", "units", "K")
    with pytest.raises(ValueError, match=r"no variables of rain in a unit of it.*rr \(K\)"):
        open_sequence(file)
    wind = xarray.Dataset({"u": (("y", "x"), np.ones((4, 4)), {"units": "m s-1", "standard_name": "eastward_wind"})})
    wind.to_netcdf(tmp_path / "wind202107141200.nc")
    with pytest.raises(ValueError, match=r"no variables of rain in a unit of it.*u \(m s-1\)"):
        open_sequence(tmp_path / "wind202107141200.nc")
    file = mrms(tmp_path, START, storm(0))
    message = bytearray(file.read_bytes())
    message[6] = 0  # the discipline: now 0/6/1, total cloud cover
    file.write_bytes(message)
    with pytest.raises(ValueError, match="wanted a rain rate or reflectivity"):
        open_sequence(file)


def test_all_missing_is_said(tmp_path: Path) -> None:
    odim(tmp_path, START, np.full((4, 4), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"1200.h5 at 2021-07-14 12:00: every cell is missing"):
        open_sequence(tmp_path).rates()


@pytest.mark.parametrize("kind", FORMATS)
def test_files_that_are_cut_off_are_named(tmp_path: Path, kind: str) -> None:
    file = write_event(tmp_path, kind, 1, height=96, width=96)[0]
    content = file.read_bytes()
    for left in (0, 3, len(content) // 3, 4 * len(content) // 5):
        file.write_bytes(content[:left])
        with pytest.raises(ValueError, match=file.name):
            open_sequence(file).rates()


def test_nothing_else_is_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.arange(48 * 40, dtype=np.uint16).tobytes())
    file = odim(tmp_path, START, storm(0))
    with h5py.File(file, "r+") as content:
        del content["dataset1/data1/data"]
        content["dataset1/data1"].create_dataset(
            "data", (48, 40), np.uint16, external=[(str(secret), 0, h5py.h5f.UNLIMITED)]
        )
    with pytest.raises(ValueError, match="lie in other files"):
        open_sequence(file)
    target = netcdf(tmp_path, START, storm(0))
    for kind in ("dataset1", "rr"):
        linked = tmp_path / f"linked_{kind}.h5"
        with h5py.File(linked, "w") as content:
            content.create_group("what")
            content[kind] = h5py.ExternalLink(str(target), "rr")
        with pytest.raises(ValueError, match="link to another file"):
            open_sequence(linked)
    vrt = tmp_path / "rain_202107141200.tif"
    write_event(tmp_path / "tif", "geotiff", 1)
    vrt.write_text(f'<VRTDataset rasterXSize="40" rasterYSize="48"><VRTRasterBand dataType="Float32" band="1">'
                   f"<SimpleSource><SourceFilename>{next((tmp_path / 'tif').iterdir())}</SourceFilename>"
                   f"</SimpleSource></VRTRasterBand></VRTDataset>")  # fmt: skip
    with pytest.raises(ValueError, match="does not begin as one"):
        open_sequence(vrt)


@pytest.mark.parametrize(
    "projection",
    ["+init={file}:x", "init={file}:x", "+proj=longlat +R=6371000 +nadgrids={file}", "+proj=vgridshift +grids={file}",
     "+proj=pipeline +step +proj=tinshift +file={file}", "+proj=stere +R=1 +geoidgrids=@{file}",
     "+proj=stere +lat_0=90 +R=6371000;+nadgrids={file}", "+proj=longlat+nadgrids={file}"],
)  # fmt: skip
def test_a_projection_opens_no_other_file(tmp_path: Path, projection: str) -> None:
    named = tmp_path / "named"
    named.write_text("<x> +proj=stere +lat_0=90 +lon_0=10 +R=6371000 <>\n")
    projection = projection.format(file=named)
    files = [write_event(tmp_path / kind, kind, 1)[0] for kind in ("odim", "knmi")]
    places = [("where", "projdef"), ("geographic/map_projection", "projection_proj4_params")]
    for file, (group, name) in zip(files, places, strict=True):
        with h5py.File(file, "r+") as content:
            content[group].attrs[name] = np.bytes_(projection)
    geographic = (
        'GEOGCS["x",DATUM["d",SPHEROID["s",6371000,0]],PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433],'
    )
    for number, attributes in enumerate((
        {"proj4": projection}, {"crs_wkt": projection}, {"spatial_ref": projection},
        {"crs_wkt": f'{geographic}EXTENSION["PROJ4","{projection}"]]'},
    )):  # fmt: skip
        files.append(write_event(tmp_path / f"netcdf{number}", "netcdf", 1)[0])
        with h5py.File(files[-1], "r+") as content:
            mapping = content[content["rr"].attrs["grid_mapping"]].attrs
            for name in list(mapping):
                del mapping[name]
            mapping.update(attributes)
    for file in files:
        with pytest.raises(ValueError, match=r"could name another file|no projection that PROJ knows") as refused:
            open_sequence(file)
        assert file.name in str(refused.value)


def test_projections_of_weather_services_are_taken() -> None:
    for projection in (
        STEREO, "", "EPSG:3035", "+proj=longlat +datum=WGS84 +no_defs",
        "+proj=merc +a=6378137 +b=6378137 +nadgrids=@null",
        "+proj=somerc +lat_0=46.95240555 +lon_0=7.4395833 +k_0=1 +x_0=600000 +y_0=200000 +ellps=bessel "
        "+towgs84=674.374,15.056,405.346,0,0,0,0 +units=m +no_defs",
        "+proj=ob_tran +o_proj=longlat +lon_0=-162 +o_lat_p=39.25 +R=6.37e+06 +type=crs",
        "+proj=laea +lat_0=55.0 +lon_0=10.0 +x_0=1950000.0 +y_0=-2100000.0 +units=m +ellps=WGS84",
    ):  # fmt: skip
        assert Grid(2, 2, projection=projection).projection == projection


def test_nothing_is_written_beside_a_file(tmp_path: Path) -> None:
    for kind in FORMATS:
        write_event(tmp_path / kind, kind, 1)
        before = set((tmp_path / kind).iterdir())
        open_sequence(tmp_path / kind).rates()
        assert set((tmp_path / kind).iterdir()) == before


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLASM_READ_LIMIT", "0.001")
    file = tmp_path / "202107141200.pgm.gz"
    file.write_bytes(gzip.compress(b"P5\n# x\n" + bytes(8 << 20)))
    with pytest.raises(ValueError, match="PLASM_READ_LIMIT"):
        open_sequence(file)
    file = odim(tmp_path, START, storm(0))
    with h5py.File(file, "r+") as content:
        del content["dataset1/data1/data"]
        content["dataset1/data1"].create_dataset("data", (100_000, 100_000), np.uint16, chunks=(100, 100))
    with pytest.raises(ValueError, match="PLASM_READ_LIMIT"):
        open_sequence(file).rates()
    monkeypatch.setenv("PLASM_READ_LIMIT", "0.01")
    for number, tiled in enumerate(({"blockxsize": 8192, "blockysize": 4096}, {"count": 3, "interleave": "pixel"})):
        file = tmp_path / f"rain_2021071412{number:02}.tif"
        tiling = {"count": 1, "blockxsize": 2048, "blockysize": 2048, "compress": "deflate", "tiled": True, **tiled}
        with rasterio.open(file, "w", "GTiff", 16, 16, dtype="uint8", sparse_ok=True, **tiling) as content:
            content.units = ["mm/h"] * content.count
        with pytest.raises(ValueError, match=r"a block of .*PLASM_READ_LIMIT"):
            open_sequence(file)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    write_event(tmp_path, count=2)
    (tmp_path / "README.md").write_text("about")
    (tmp_path / ".hidden.h5").write_text("no")
    os.mkdir(tmp_path / "sub.h5")
    assert len(open_sequence(tmp_path)) == 2
    with pytest.raises(FileNotFoundError, match="holds no radar files"):
        open_sequence(tmp_path / "README.md")
    with pytest.raises(FileNotFoundError, match="nothing"):
        open_sequence(tmp_path / "nothing")


@pytest.mark.parametrize("kind", ["knmi", "fmi/2016*", "mrms"])
def test_the_real_files(full_data: Path, kind: str) -> None:
    folder = full_data / "radar"
    if not folder.is_dir():
        pytest.skip("needs the radar files in radar in the folder that PLASM_DATA names")
    from plasm.data.radar.sequence import find_files

    files = find_files(folder / kind)[:2] if kind != "mrms" else find_files(folder / kind)[:1]
    frames = [frame for file in files for frame in open_frames(file) or []]
    rate = frames[-1].load()
    missing = np.isnan(rate).mean()
    if kind == "knmi":
        assert frames[1].time == datetime(2010, 8, 26, 0, 5)
        assert round(missing, 2) == 0.74
        assert frames[1].grid.km == 1
    elif kind == "mrms":
        assert frames[0].time == datetime(2019, 6, 10)
        assert rate.shape == (3500, 7000)
        assert missing > 0.2
    else:
        assert frames[1].time == datetime(2016, 9, 28, 14, 50)
        assert rate.shape == (1226, 760)
        # The upper corner that the header gives.
        import pyproj

        grid = frames[0].grid
        x, y = pyproj.Proj(grid.projection)(34.903, 69.005)
        assert (grid.left + 760 * grid.dx, grid.top) == pytest.approx((x, y), abs=2000)
