import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import fails, ok
from radar_files import write_event

import plasm
from plasm import rain, weights
from plasm.evaluation import EvaluateConfig
from plasm.rain import RainScores, evaluate_rain, persistence
from plasm.rain.evaluation import open_clips, write_scores

pytest.importorskip("h5py")
pytest.importorskip("pyproj")
pytest.importorskip("scipy")


def test_the_command_writes_tables_and_pictures(tmp_path: Path) -> None:
    sizes = {"encoder_dim": 8, "translator_dim": 16, "encoder_depth": 2, "translator_depth": 1}
    weights.save_pretrained(plasm.create_model("plasm_mmnist_tiny", in_frames=4, out_frames=3, **sizes), tmp_path / "w")
    write_event(tmp_path / "in", count=10)
    printed = ok(
        "evaluate",
        "--data",
        "radar",
        "--data-dir",
        tmp_path / "in",
        "--weights",
        tmp_path / "w",
        "--out",
        tmp_path / "out",
    )
    assert "2 clips of radar, 4 -> 3 frames of 5 minutes, 1 km" in printed
    names = {"scores.csv", "spectra.csv", "lead_times.png", "performance.png"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == names
    with (tmp_path / "out" / "scores.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    methods = {row["method"] for row in rows}
    assert {"model", "persistence"} <= methods
    assert len(rows) == len(methods) * 3 * 7
    # All methods are measured on the same cells.
    cells = {
        (row["lead_minutes"], sum(int(row[k]) for k in ("hits", "misses", "false_alarms", "correct_negatives")))
        for row in rows
    }
    assert len(cells) == 3
    assert not (tmp_path / "w" / "metrics.json").exists()


def test_persistence_scores_as_counted_anew(tmp_path: Path) -> None:
    write_event(tmp_path, count=8)
    clips = open_clips(tmp_path, 5, {"every": 2})
    assert clips.starts == ((0, 0), (0, 2))
    scores = evaluate_rain({"persistence": persistence}, clips, 3, 2)
    hits = misses = 0
    for start in (0, 2):
        rates = clips.rates(start // 2, 5)
        both = (rates[2] >= 1) & (rates[4] >= 1)
        hits, misses = hits + int(both.sum()), misses + int((rates[4] >= 1).sum() - both.sum())
    (row,) = (r for r in scores.rows(5) if (r["threshold_mm_h"], r["lead_minutes"]) == (1.0, 10))
    assert (row["hits"], row["misses"]) == (hits, misses)
    assert hits > 50


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    write_event(tmp_path / "a", count=8)
    write_event(tmp_path / "b", "mrms", count=8)
    assert len(open_clips(tmp_path / "a", 6, {"starts": (0, 2)})) == 2
    with pytest.raises(ValueError, match="clips of 6 start at 0 to 2, got 3"):
        open_clips(tmp_path / "a", 6, {"starts": (0, 3)})
    with pytest.raises(ValueError, match="events differ: 5 minutes and 48 x 40, 1 km"):
        open_clips(tmp_path, 6, {"events": {"a": "test", "b": "test"}})
    with pytest.raises(ValueError, match="has no option levels here"):
        open_clips(tmp_path / "a", 6, {"levels": 3})
    with pytest.raises(ValueError, match="too few for clips of 20"):
        open_clips(tmp_path / "a", 20, {})
    write_event(tmp_path / "wide", count=6, width=140)
    half = open_clips(tmp_path, 6, {"events": {"wide": {"train": (0, 10), "test": (138, 140)}}, "stride": 1})
    assert half.events[0][1] == slice(138, 140)
    assert "holds no radar files" in fails(
        "evaluate",
        "--data",
        "radar",
        "--data-dir",
        Path(__file__),
        "--model",
        "plasm_mmnist_tiny",
        "--out",
        tmp_path / "o",
    )


def test_step_and_spacing_are_as_in_training(tmp_path: Path) -> None:
    write_event(tmp_path, "mrms", count=9)
    plain, slower = open_clips(tmp_path, 4, {}), open_clips(tmp_path, 4, {"step": 10, "km": 1})
    assert (plain.stride, plain.minutes, slower.stride, slower.minutes) == (1, 5, 2, 10)
    # A hundredth of a degree, whatever the model is for.
    assert plain.km == slower.km == pytest.approx(1.112, abs=0.001)
    for given, said in (
        ({"step": 7}, "step of 5 minutes, wanted 7"), ({"km": 4}, "cells of 1.11 km, wanted 4"),
        ({"km": -1}, "got None and -1"), ({"step": "5 min"}, "got '5 min' and None"),
        ({"step": 10, "stride": 1}, "step=10 is a stride of 2 here, got stride=1"),
        ({"starts": 5}, "starts are .*got 5"),
        ({"events": {"*": {"test": (30, 90)}}}, r"columns 0 to 40, got \(30, 90\)"),
        ({"events": {"*": {"test": (30, 20)}}}, r"columns 0 to 40, got \(30, 20\)"),
        ({"events": {"*": {"test": 5}}}, r"columns of \* are \(first, last\).*got 5"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            open_clips(tmp_path, 4, given)


@pytest.mark.parametrize("given", [{"per_frame": True}, {"published": True}, {"lpips": "download"}])
def test_scores_of_pictures_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="takes no --per-frame, --published and --lpips"):
        rain.run(EvaluateConfig(data="radar", data_dir="x", **given))


def test_tables_of_nothing_but_dry_cells(tmp_path: Path) -> None:
    scores = RainScores(["model"], 2, 1.0)
    scores.update({"model": np.zeros((2, 8, 8))}, np.zeros((2, 8, 8)))
    files = write_scores(scores, 5, tmp_path)
    assert [file.name for file in files] == ["scores.csv", "lead_times.png", "performance.png"]
    assert "nan" in files[0].read_text()
