from pathlib import Path

import numpy as np
import pytest
from commands import fails, ok
from radar_files import FORMATS, START, STEP, write_event

import plasm
from plasm import weights
from plasm.data.radar import open_sequence

xarray = pytest.importorskip("xarray")
pytest.importorskip("h5py")
pytest.importorskip("pyproj")
pytest.importorskip("eccodes")
pytest.importorskip("rasterio")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rain") / "small"
    sizes = {"encoder_dim": 8, "translator_dim": 16, "encoder_depth": 2, "translator_depth": 1}
    weights.save_pretrained(plasm.create_model("plasm_mmnist_tiny", in_frames=4, out_frames=3, **sizes), folder)
    return folder


@pytest.mark.parametrize("kind", FORMATS)
def test_a_folder_of_every_format_becomes_a_forecast(
    tmp_path: Path, model: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plasm.rain.prediction.has_optical_flow", lambda: False)
    if kind != "odim":  # one picture is enough: they take longer than all the rest
        monkeypatch.setattr("plasm.rain.pictures.draw_forecast", lambda *_: None)
    write_event(tmp_path / "in", kind, count=5)
    out = tmp_path / "out" / "forecast.nc"
    printed = ok(
        "predict", "--data", "radar", "--weights", model, "--input", tmp_path / "in", "--frames", 5, "--out", out
    )
    assert "5 frames of 48 x 40 cells, every 5 minutes after 2021-07-14 12:20" in printed
    assert "optical flow is left out" in printed
    assert kind != "odim" or out.with_suffix(".png").stat().st_size > 5000
    grid = open_sequence(tmp_path / "in").grid
    with xarray.open_dataset(out, engine="h5netcdf") as content:
        rain = content["precip_intensity"]
        assert rain.dims == ("time", "y", "x")
        assert rain.shape == (5, 48, 40)
        assert rain.attrs["units"] == "mm h-1"
        expected = [np.datetime64(START + (5 + lead) * STEP) for lead in range(5)]
        assert content["time"].values.astype("datetime64[s]").tolist() == [t.tolist() for t in expected]
        np.testing.assert_allclose(content["x"], grid.x)
        np.testing.assert_allclose(content["y"], grid.y)
        covered = content["covered"].values
        assert np.array_equal(np.isfinite(rain.values), np.broadcast_to(covered == 1, rain.shape))
        assert covered[:, -6:].max() == 0
        assert covered[:, :-6].min() == 1
        assert float(rain.min()) >= 0
        assert content.attrs["model"] == "PLASM"
        assert content.attrs["weights"] == "small"
        assert len(content.attrs["weights_sha256"]) == 64
        assert content.attrs["step_minutes"] == 5
        assert content[rain.attrs.get("grid_mapping", rain.encoding.get("grid_mapping"))] is not None
    # It can be read as radar again, where it was.
    again = open_sequence(out)
    assert again.grid.difference(open_sequence(out).grid) is None
    assert (again.grid.left, again.grid.top) == pytest.approx((grid.left, grid.top), abs=1e-3 * grid.dx)
    assert [f.name for f in out.parent.iterdir() if f.name.startswith(".")] == []


def test_published_weights_are_told_with_their_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plasm.rain.prediction.has_optical_flow", lambda: False)
    monkeypatch.setattr("plasm.rain.pictures.draw_forecast", lambda *_: None)
    write_event(tmp_path / "in", count=6, height=64, width=64)
    row = weights.entry("plasm_radar")
    for given in (("--model", row.model), ("--weights", row.name)):
        ok("predict", "--data", "radar", *given, "--input", tmp_path / "in", "--frames", 1, "--out", tmp_path / "f.nc")
        with xarray.open_dataset(tmp_path / "f.nc", engine="h5netcdf") as content:
            assert (content.attrs["weights"], content.attrs["weights_sha256"]) == (row.name, row.sha256)


def test_weights_of_something_else_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("plasm.rain.prediction.has_optical_flow", lambda: False)
    monkeypatch.setattr("plasm.rain.pictures.draw_forecast", lambda *_: None)
    write_event(tmp_path / "in", count=10, height=64, width=64)
    digits = ("--model", "tau_mmnist_tiny", "--frames", 1, "--out", tmp_path / "f.nc")
    ok("predict", "--data", "radar", "--input", tmp_path / "in", *digits)
    assert "tau_mmnist_tiny.league was trained on mmnist, not on radar" in caplog.text


def test_pysteps_reads_the_forecast(tmp_path: Path, model: Path) -> None:
    pytest.importorskip("cv2")
    pysteps = pytest.importorskip("pysteps")
    write_event(tmp_path / "in", "knmi", count=5)
    ok("predict", "--data", "radar", "--weights", model, "--input", tmp_path / "in", "--out", tmp_path / "f.nc")
    rates, metadata = pysteps.io.import_netcdf_pysteps(str(tmp_path / "f.nc"), onerror="raise")
    assert rates.shape == (3, 48, 40)
    assert np.isnan(rates[..., -6:]).all()
    assert list(metadata["leadtimes"]) == [5, 10, 15]
    assert metadata["unit"] == "mm/h"
    assert (metadata["x1"], metadata["y2"], metadata["xpixelsize"]) == (0, -3_650_000, 1000)
    assert "+lat_ts=60" in metadata["projection"]


def test_from_an_earlier_time_with_the_truth_beside_it(tmp_path: Path, model: Path) -> None:
    from plasm.rain import predict_rain

    write_event(tmp_path / "in", count=9)
    source, out = str(tmp_path / "in"), str(tmp_path / "out")
    done = predict_rain(source, weights=str(model), out=out, data_args={"at": "2021-07-14T12:25"})
    assert done.start == START + 5 * STEP
    np.testing.assert_array_equal(done.truth, open_sequence(source).rates(6, 3))
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["forecast.nc", "forecast.png"]
    # With the frames before alone it is the same.
    for file in sorted((tmp_path / "in").iterdir())[6:]:
        file.unlink()
    later = predict_rain(source, weights=str(model), out=out)
    np.testing.assert_array_equal(done.rates, later.rates)
    assert len(later.truth) == 0


def test_errors_say_what_to_do(tmp_path: Path, model: Path) -> None:
    files = write_event(tmp_path / "in", count=6)
    radar = ("predict", "--data", "radar", "--weights", model, "--out", tmp_path / "f.nc", "--input")
    assert "is no frame at 2021-07-14 13:00" in fails(
        *radar, tmp_path / "in", "--data-arg", "at=2021-07-14T13:00"
    ).replace("there is", "is")
    assert "takes at, unit, zr, array, pattern, got axes" in fails(*radar, tmp_path / "in", "--data-arg", "axes=TYX")
    assert "takes no --size" in fails(*radar, tmp_path / "in", "--size", 32, 32)
    assert "a forecast of rain is written as NetCDF" in fails(*radar, tmp_path / "in", "--out", tmp_path / "f.mp4")
    assert "needs --input" in fails(*radar[:-1])
    files[2].unlink()
    assert "no frame of 2021-07-14 12:10" in fails(*radar, tmp_path / "in")
    for file in files[:2]:
        file.unlink()
    assert "has 3 frames up to 2021-07-14 12:25; the model needs 4" in fails(*radar, tmp_path / "in")
    assert not (tmp_path / "f.nc").exists()
