"""benchmarks/rain.py: nothing that decides a result is left to a default, and its losses are what they say."""

import csv
import importlib
import sys
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click
import pytest
import torch

from plasm.models import create_task
from plasm.training import TrainConfig

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def rain() -> Any:
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module("rain")
    sys.path.remove(folder)
    sys.modules.pop("rain")


def test_a_configuration_states_every_option_of_training(rain: Any) -> None:
    given = {"model", "model_args", "task_args", "data_args", "epochs", "eval_every", "data_dir", "out"}
    assert {field.name for field in fields(TrainConfig)} - rain.COMMON.keys() - given == {"checkpoint_minutes"}
    for name, system in {**rain.SYSTEMS, **rain.TRIALS}.items():
        config = system.config("radar", "run")
        assert (config.optimizer, config.lr, config.batch_size) == ("muon", 0.004, 6), name
        assert (config.model_args["in_frames"], config.model_args["out_frames"]) == (6, 12)


def test_trials_differ_from_the_first_in_one_thing(rain: Any) -> None:
    first, *others = rain.TRIALS.values()
    for other in others:
        changed = [f.name for f in fields(other) if getattr(other, f.name) != getattr(first, f.name)]
        assert len(changed) == 1


def test_a_run_of_other_settings_is_not_taken_for_the_systems(
    rain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, runs = "speeds by strides 1 and 2", list[str]()

    def run(config: TrainConfig, resume: bool) -> None:
        runs.append(config.out)
        Path(config.out).mkdir(parents=True)
        config.save(Path(config.out) / "config.toml")
        (Path(config.out) / "report.md").touch()

    monkeypatch.setattr(rain.training, "run", run)
    for data_dir in ("radar", "elsewhere"):
        rain.train_all.callback(data_dir, tmp_path, (name,))
    assert len(runs) == 1
    # What a run of the schedule may be given when it goes on is no less another run.
    for change in ({"epochs": 6}, {"data_args": {"strides": (1, 3)}}):
        monkeypatch.setitem(rain.TRIALS, name, replace(rain.TRIALS[name], **change))
        with pytest.raises(click.ClickException, match=f"with other settings .*{next(iter(change))} was"):
            rain.train_all.callback("radar", tmp_path, (name,))
        with pytest.raises(click.ClickException, match="with other settings"):
            rain.forecasts_of([name], "radar", tmp_path)
    assert rain.forecasts_of(["squared error"], "radar", tmp_path) == {}
    assert "squared error is left out" in capsys.readouterr().err


def test_what_docs_say_of_the_scores_holds() -> None:
    """Of both events together, from their counts, at each lead time."""
    counts: dict[tuple[str, str], Counter[tuple[str, int]]] = {}
    for event in ("knmi", "fmi"):
        with (ROOT / "docs" / "results" / f"rain_{event}.csv").open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                total = counts.setdefault((row["method"], row["threshold_mm_h"]), Counter())
                for name in ("hits", "misses", "false_alarms"):
                    total[name, int(row["lead_minutes"])] += int(row[name])

    def score(name: str, method: str, threshold: str = "1") -> list[float]:
        total, found = counts[method, threshold], []
        for lead in range(5, 65, 5):
            hits, misses, alarms = (total[each, lead] for each in ("hits", "misses", "false_alarms"))
            found.append(hits / (hits + misses + alarms) if name == "csi" else (hits + alarms) / (hits + misses))
        return found

    def ahead(first: str, second: str, threshold: str = "1") -> int:
        """At how many lead times, from the first on."""
        pairs = zip(score("csi", first, threshold), score("csi", second, threshold), strict=True)
        return next((number for number, (one, other) in enumerate(pairs) if one <= other), 12)

    for threshold in ("0.1", "1"):
        assert ahead("model", "persistence", threshold) == ahead("model", "optical flow", threshold) == 12
    bias = score("bias", "model")
    assert (round(min(bias), 2), round(max(bias), 2)) == (0.89, 1.0)
    others = {"ConvLSTM": 9, "SimVP (gSTA)": 12, "PredRNN": 12}
    for other, leads in others.items():
        assert ahead("optical flow", other) == 12
        assert ahead(other, "persistence") == leads
        assert score("bias", other)[0] > score("bias", other)[-1]
        assert score("bias", other, "0.1")[0] < score("bias", other, "0.1")[-1]
    flow, *behind = (score("csi", method)[0] for method in ("optical flow", *others))
    assert sorted(round(flow - each, 2) for each in behind) == [0.16, 0.18, 0.22]
    assert [round(score("bias", other)[-1], 2) for other in others] == [0.44, 0.44, 0.63]


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("counts", {"csi", "bias", "error"}), ("absolute", {"error"}), ("squared", {"mse"}),
        ("spectral", {"csi", "bias", "error", "spectrum"}), ("zoomed", {"csi", "bias", "error"}),
    ],
)  # fmt: skip
def test_a_form_has_its_losses(rain: Any, form: str, names: set[str]) -> None:
    model = rain.plasm_radar_trial(translator_dim=8, translator_depth=1)
    task = create_task("plasm_radar_trial", model, form=form).train()
    losses, _ = task(torch.rand(2, 18, 1, 64, 64), torch.arange(2), 0, 0)
    assert set(losses) == names
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_zoom_scales_speeds_and_sizes_in_training_alone(rain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A square that moves by 4 cells a frame moves by 6; cells without weight stay so, and weights are not mixed."""
    clips, weight = torch.zeros(1, 18, 1, 128, 128), torch.ones(1, 18, 1, 128, 128)
    for frame in range(18):
        clips[0, frame, 0, 32:64, 4 * frame : 4 * frame + 32] = 1
    weight[..., 64:] = 0
    model = rain.plasm_radar_trial(translator_dim=8, translator_depth=1)
    task = create_task("plasm_radar_trial", model, form="zoomed")
    given = {"clips": clips, "index": torch.arange(1), "epoch": 0, "step": 0, "weight": weight}
    monkeypatch.setattr(torch, "rand", lambda _: torch.ones(()))
    _, outputs = task.train()(**given)
    frames = torch.cat([outputs.shown, outputs.target], 1)[0, :, 0]
    assert frames.shape == (18, 192, 192)
    left = [(row > 0.5).nonzero().min().item() for row in frames[:, 72]]
    assert left == [6 * frame for frame in range(18)]
    assert (frames[0] > 0.5).sum() == 48**2
    # Where there is no weight, the forecast that is told is the truth; and a cell that a missing one has a part in.
    differs = (outputs.prediction != outputs.target).any(0).flatten(0, -2).any(0)
    assert differs.nonzero().max() == 94
    monkeypatch.setattr(torch, "rand", lambda _: torch.zeros(()))
    _, outputs = task.train()(**given)
    assert outputs.shown.shape[-2:] == (85, 85)
    _, outputs = task.eval()(**given)
    assert outputs.shown.shape[-2:] == (128, 128)


def test_octaves_hold_all_the_power_each_where_its_wavelength_is(rain: Any) -> None:
    frames = torch.rand(2, 3, 1, 64, 64)
    power = torch.fft.rfft2(frames, norm="ortho").abs().square().sum((0, 2, 3, 4))
    torch.testing.assert_close(rain.octaves(frames).sum(1), power)
    columns = torch.arange(64.0)
    for octave, wavelength in enumerate((3, 6, 12, 24)):
        wave = (2 * torch.pi * columns / wavelength).sin().expand(1, 1, 1, 64, 64)
        assert rain.octaves(wave).argmax() == octave
