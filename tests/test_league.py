"""The plan of benchmarks/league.py: who is in it, what is trained next, and that nothing is left to a default."""

import importlib
import inspect
import itertools
import json
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from plasm import weights
from plasm.evaluation import VideoMetrics
from plasm.models import family_of, summarize
from plasm.training import TrainConfig, create_config

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "plasm" / "data" / "samples"


@pytest.fixture
def league(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("league")
    sys.modules.pop("league")


def done(league: Any, plan: Any, val_mse: float) -> Any:
    return league.Row(
        model=plan.model, stage=plan.stage, shape=json.dumps(plan.shape), optimizer=plan.optimizer, lr=plan.lr,
        clips=2400, seed=plan.seed, digest=plan.digest(), val_mse=val_mse, hours=0.1, parameters=1, macs=1.0,
        curve=json.dumps([val_mse]) if plan.stage == "league" else "",
    )  # fmt: skip


def test_every_system_is_in_it_with_two_shapes(league: Any) -> None:
    assert set(league.SYSTEMS) == set(timm.list_models("*_mmnist_tiny"))
    assert all(len(system.shapes) == 2 for system in league.SYSTEMS.values())


@pytest.mark.slow
def test_every_shape_costs_what_the_league_allows(league: Any) -> None:
    """Whatever does not is refused before it is trained, too."""
    for name, system in league.SYSTEMS.items():
        for shape in system.shapes:
            summary = summarize(name, **shape)
            assert abs(summary.macs / 1.05e9 - 1) <= 0.15, (name, shape)
            assert summary.parameters <= 4_000_000
    costs = {(row.model, row.shape): row.macs for row in league.read()}
    assert costs == {(name, shape): summarize(name, **json.loads(shape)).macs for name, shape in costs}
    assert all(row.macs == costs[row.model, row.shape] for row in league.read())


def test_a_plan_states_every_option_of_training(league: Any) -> None:
    plan = league.Plan("predrnn_mmnist_tiny", "league", {}, "adam", 0.001)
    # Folders, and how often it is saved, change no result.
    assert {field.name for field in fields(TrainConfig)} - plan.values().keys() == {
        "data_dir", "out", "checkpoint_minutes",
    }  # fmt: skip


def test_a_digest_is_of_what_decides_the_result(league: Any) -> None:
    plan = league.Plan("predrnn_mmnist_tiny", "shape", {"patch_size": 4}, "muon", 0.004)
    others = [
        replace(plan, **change)
        for change in ({"stage": "league"}, {"shape": {}}, {"optimizer": "adam"}, {"lr": 0.01}, {"seed": 1})
    ]
    assert len({each.digest() for each in (plan, *others)}) == 6
    # The same training, at another time: a stage that has the settings of another is not trained again.
    assert replace(plan, stage="recipe").digest() == plan.digest()


def test_sampling_ends_at_two_fifths_of_every_run(league: Any) -> None:
    trial, final = (
        league.Plan("predrnn_mmnist_tiny", stage, {}, "adam", 0.001).values() for stage in ("shape", "league")
    )
    assert trial["epochs"] * trial["clips_per_epoch"] == 2400
    assert final["epochs"] * final["clips_per_epoch"] == 48_000
    assert trial["task_args"] == {"sampling_stop": 120}
    assert final["task_args"] == {"sampling_stop": 2400}


def test_the_stages_follow_each_other_and_the_best_goes_on(league: Any) -> None:
    name, rows = "predrnn_mmnist_tiny", []
    errors = {("shape", 0): 150.0, ("shape", 1): 140.0}
    for shape in league.SYSTEMS[name].shapes:
        plan = league.next_plan(name, rows)
        assert (plan.stage, plan.shape, plan.optimizer, plan.lr) == ("shape", shape, "muon", 0.004)
        rows.append(done(league, plan, errors["shape", len(rows)]))
    # A rate that was not borne is a row, and does not go on; the best of the others does.
    for val_mse in (float("nan"), 130.0, 135.0):
        plan = league.next_plan(name, rows)
        assert plan.stage == "recipe"
        assert plan.shape == league.SYSTEMS[name].shapes[1]
        rows.append(done(league, plan, val_mse))
    final = league.next_plan(name, rows)
    assert (final.stage, final.shape, final.optimizer, final.lr) == (
        "league", league.SYSTEMS[name].shapes[1], "adam", 0.001,
    )  # fmt: skip
    rows.append(done(league, final, 80.0))
    assert league.next_plan(name, rows[:-1], seeds=0) is None
    assert league.next_plan(name, rows) is None
    assert league.next_plan(name, rows, seeds=2) == replace(final, seed=1)
    assert len({row.digest for row in rows}) == len(rows)


@pytest.mark.parametrize(("higher", "rate"), [(99.0, 0.004), (97.0, 0.01), (101.0, 0.004)])
def test_a_higher_rate_goes_on_only_if_it_is_better_by_two_percent(league: Any, higher: float, rate: float) -> None:
    name, rows = "predrnn_mmnist_tiny", []
    for val_mse in (100.0, 120.0, higher, 110.0, 110.0):
        rows.append(done(league, league.next_plan(name, rows), val_mse))
    final = league.next_plan(name, rows)
    assert (final.stage, final.optimizer, final.lr) == ("league", "muon", rate)


@pytest.mark.parametrize(("curve", "rate"), [
    ([100.0, 90.0, 91.7], 0.004), ([100.0, 90.0, 91.9], 0.001), ([100.0, float("nan")], 0.001),
])  # fmt: skip
def test_a_rate_that_a_final_does_not_bear_is_quartered(league: Any, curve: list[float], rate: float) -> None:
    name, rows = "predrnn_mmnist_tiny", []
    for val_mse in (100.0, 120.0, 110.0, 110.0, 110.0):
        rows.append(done(league, league.next_plan(name, rows), val_mse))
    first = league.next_plan(name, rows)
    # Of a loss that was not finite the curve has what came before.
    row = replace(done(league, first, curve[-1]), curve=json.dumps([each for each in curve if each == each]))
    rows = league.with_row(rows, row)
    if rate == 0.004:
        assert league.next_plan(name, rows) is None
        # A second seed has the rate that the first one bore.
        assert league.next_plan(name, rows, seeds=2) == replace(first, seed=1)
        return
    again = league.next_plan(name, rows)
    assert again == replace(first, lr=rate)
    rows = league.with_row(rows, replace(done(league, again, 85.0), curve="[95.0, 85.0]"))
    assert [(row.stage, row.lr) for row in rows[5:]] == [("lost", 0.004), ("league", 0.001)]
    assert league.next_plan(name, rows) is None
    assert league.next_plan(name, rows, seeds=2) == replace(again, seed=1)


def test_weights_of_a_rate_that_was_not_borne_are_not_published(
    league: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = league.Plan("predrnn_mmnist_tiny", "league", league.SYSTEMS["predrnn_mmnist_tiny"].shapes[0], "muon", 0.004)
    unborne = replace(done(league, plan, 91.9), curve="[100.0, 90.0, 91.9]")
    second = replace(done(league, replace(plan, seed=1), 91.9), curve="[100.0, 90.0, 91.9]")
    file = tmp_path / "league.csv"
    monkeypatch.setattr(league, "read", lambda read=league.read: read(file))
    monkeypatch.setattr(league, "write", lambda rows, write=league.write: write(rows, file))
    monkeypatch.setattr(league, "publish", lambda row, *_: replace(row, metrics="published"))
    # Those of another seed are measured, whatever they do, and published never.
    monkeypatch.setattr(league, "measure", lambda row, *_: replace(row, metrics="measured"))
    for each in (unborne, second):
        folder = league.finished([each])[0][1].folder(tmp_path)
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
    league.write([unborne, second])
    league.measure_all.callback("data", tmp_path)
    assert [row.metrics for row in league.read()] == ["", "measured"]
    league.write([replace(unborne, curve="[100.0, 91.9]")])
    league.measure_all.callback("data", tmp_path)
    assert [row.metrics for row in league.read()] == ["published"]


def test_a_final_of_an_earlier_choice_is_kept_as_lost(
    league: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name, kept = "tau_mmnist_tiny", []
    for val_mse in (100.0, 120.0, 99.0, 110.0, 110.0):
        kept.append(done(league, league.next_plan(name, kept), val_mse))
    earlier = done(league, league.Plan(name, "league", league.SYSTEMS[name].shapes[0], "muon", 0.01), 90.0)
    other = replace(earlier, seed=1, digest="of another seed")
    different = done(league, league.Plan("simvp_mmnist_tiny", "league", {}, "muon", 0.01), 90.0)
    league.write([*kept, earlier, other, different], file := tmp_path / "league.csv")
    monkeypatch.setattr(league, "read", lambda read=league.read: read(file))
    monkeypatch.setattr(league, "write", lambda rows, write=league.write: write(rows, file))
    monkeypatch.setattr(league, "train", lambda plan, *_: done(league, plan, 80.0))
    league.train_all.callback("data", tmp_path, (name,), 1)
    rows = [row for row in league.read() if row.model == name]
    assert [(row.stage, row.lr, row.seed) for row in rows[5:]] == [
        ("lost", 0.01, 0), ("lost", 0.01, 1), ("league", 0.004, 0),
    ]  # fmt: skip
    assert [plan.model for _, plan in league.finished(league.read())] == ["simvp_mmnist_tiny", name]
    # One that diverged takes no place.
    diverged = done(league, league.Plan(name, "league", league.SYSTEMS[name].shapes[0], "muon", 0.03), float("nan"))
    assert [row.stage for row in league.with_row(rows, diverged)[5:]] == ["lost", "lost", "league", "league"]
    # A second seed of the same recipe joins the first.
    league.train_all.callback("data", tmp_path, (name,), 2)
    assert [(row.lr, row.seed) for row, _ in league.finished(league.read())[1:]] == [(0.004, 0), (0.004, 1)]
    # Its settings are those of a final: the row is still what the script would train.
    assert league.Plan(name, "lost", league.SYSTEMS[name].shapes[0], "muon", 0.01).digest() == earlier.digest


def test_rows_are_kept_in_one_file(league: Any, tmp_path: Path) -> None:
    rows = [
        done(league, league.Plan("tau_mmnist_tiny", "shape", {"translator_depth": 4}, "muon", 0.004), 100.0),
        done(league, league.Plan("plasm_mmnist_tiny", "shape", {}, "muon", 0.004), 90.0),
    ]
    file = tmp_path / "league.csv"
    assert league.read(file) == []
    league.write(rows, file)
    assert league.read(file) == rows[::-1]  # by system


def test_the_finished_rows_are_in_the_plan(league: Any) -> None:
    """The stored table is of the script as it is: a row whose settings changed would be trained again."""
    for row in league.read():
        stage = row.stage
        plan = league.Plan(row.model, stage, json.loads(row.shape), row.optimizer, row.lr, row.seed)
        assert plan.digest() == row.digest
        assert plan.shape in league.SYSTEMS[row.model].shapes
        tried = {(row.optimizer, row.lr), (row.optimizer, row.lr * league.SLOWER)}
        assert tried & set(league.RECIPES)
        # What a shape leaves open is a default of the constructor.
        assert row.parameters == sum(p.numel() for p in timm.create_model(row.model, **plan.shape).parameters())


def test_what_a_plan_leaves_to_tasks_is_what_the_rows_had(league: Any) -> None:
    """No digest knows of these: rows that are trained with others would compare with those that are there."""
    sampled = {"reverse_sampling": False, "sampling_alpha": None, "decouple_weight": None}
    expected: dict[str, dict[str, Any]] = {"tau_mmnist_tiny": {"divergence_weight": 0.1}}
    for name, system in league.SYSTEMS.items():
        parameters = inspect.signature(family_of(name).task).parameters
        left = {key: each.default for key, each in parameters.items() if key not in ("model", "rollout")}
        if system.sampling:
            left.pop(system.sampling)
        assert left == (sampled if system.sampling == "sampling_stop" else expected.get(name, {})), name


def test_a_final_has_the_recipe_of_its_constructor(league: Any) -> None:
    """``plasm train --model NAME`` trains as the weights of that name were."""
    for row in published(league):
        plan = league.Plan(row.model, row.stage, json.loads(row.shape), row.optimizer, row.lr, row.seed)
        # The default weights of PLA-SM are of a longer training.
        if row.model != "plasm_mmnist_tiny":
            config = create_config(TrainConfig, {"model": row.model, "data": "mmnist", "data_dir": "d", "out": "o"})
            told = {key: value for key, value in asdict(config).items() if key in plan.values()}
            differs = {key for key, value in told.items() if plan.values()[key] != value}
            # What a machine decides by default, and the shape, which is the constructor's.
            assert differs <= {"bf16", "device", "model_args"}, row.model


@pytest.mark.parametrize("stage", ["shape", "league"])
def test_a_training_becomes_a_row(league: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: str) -> None:
    length = {"epochs": 2, "clips_per_epoch": 8, "warmup_steps": 1, "decay_epochs": 1}
    lengths = {"trial": {**length, "eval_every": 2}, "league": {**length, "eval_every": 1}}
    monkeypatch.setattr(league, "LENGTHS", lengths)
    monkeypatch.setattr(league, "COMMON", {**league.COMMON, "val_clips": 2})
    plan = replace(league.next_plan("convlstm_mmnist_tiny", []), stage=stage)
    row = league.train(plan, str(SAMPLES), tmp_path)
    log = [json.loads(line) for line in (plan.folder(tmp_path) / "log.jsonl").read_text().splitlines()]
    assert (row.val_mse, row.clips) == (round(log[-1]["val_mse"], 3), 16)
    # A final keeps what each epoch came to.
    assert row.curve == ("" if stage == "shape" else json.dumps([round(each["val_mse"], 3) for each in log]))
    assert abs(row.macs / 1.05e9 - 1) <= 0.15
    # Finished: not trained a second time.
    monkeypatch.setattr(league.training, "run", None)
    assert league.train(plan, str(SAMPLES), tmp_path) == row


def test_a_rate_that_is_not_borne_is_a_row_and_too_large_a_model_none(
    league: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise FloatingPointError("the loss is not finite")

    monkeypatch.setattr(league.training, "run", run)
    plan = league.next_plan("convlstm_mmnist_tiny", [])
    assert np.isnan(league.train(plan, str(SAMPLES), tmp_path).val_mse)
    # A final keeps what it came to before.
    final = replace(plan, stage="league")
    final.folder(tmp_path).mkdir(parents=True)
    (final.folder(tmp_path) / "log.jsonl").write_text('{"clips_per_second": 10.0, "val_mse": 90.0}\n')
    row = league.train(final, str(SAMPLES), tmp_path)
    assert np.isnan(row.val_mse)
    assert (row.curve, row.clips) == ("[90.0]", 4800)
    with pytest.raises(ValueError, match=r"is outside the league: .* G MACs"):
        league.train(replace(plan, shape={"hidden_dims": [64] * 4}), str(SAMPLES), tmp_path)


def test_a_final_has_an_error_after_each_epoch(league: Any) -> None:
    for row in league.read():
        curve = json.loads(row.curve or "[]")
        if np.isnan(row.val_mse):
            continue  # it diverged
        assert len(curve) == (0 if row.stage in league.TRIALS else row.clips // 4800), row.model
        assert row.stage in league.TRIALS or curve[-1] == row.val_mse
        assert row.stage == "lost" or row.clips == (2400 if row.stage in league.TRIALS else 48_000)


def published(league: Any) -> list[Any]:
    """The finished rows whose weights come with the package."""
    return [row for row in league.read() if row.stage == "league" and row.seed == 0 and row.metrics]


def test_a_measured_row_is_that_of_the_weights_in_the_package(league: Any) -> None:
    for row in published(league):
        entry, scores = weights.entry(row.model, "league"), json.loads(row.metrics)
        assert entry.clips == row.clips
        assert {name: round(value, 4) for name, value in entry.metrics.items()}.items() <= scores.items()
        assert sum(scores["mse_per_frame"]) / 10 == pytest.approx(scores["mse"], abs=1e-3)
        model = timm.create_model(f"{row.model}.league")
        assert sum(p.numel() for p in model.parameters()) == row.parameters


@pytest.mark.parametrize(("variance", "said"), [(1.0, False), (4e8, True)])
def test_weights_that_float16_does_not_hold_say_so(league: Any, tmp_path: Path, variance: float, said: bool) -> None:
    plan = league.Plan("simvp_gsta_mmnist_tiny", "league", {}, "muon", 0.01)
    plan.folder(tmp_path).mkdir(parents=True)
    weights.save_tensors({"a": torch.tensor([variance])}, plan.folder(tmp_path) / "model.safetensors")
    note = league.note_of(plan, tmp_path)
    assert note.startswith(league.NOTE)
    assert ("variances of up to 4e+08 are kept in float32" in note) == said


@pytest.fixture(scope="module")
def sample_scores() -> dict[str, dict[str, float]]:
    """What weights of the league do on the package's clips, by model; black and the last frame beside them."""
    with np.load(SAMPLES / "clips.npz") as stored:
        clips = torch.from_numpy(stored["clips"]).float() / 255
    seen, later = clips[:, :10], clips[:, 10:]
    forecasts = {"last frame": seen[:, -1:].expand_as(later), "black": torch.zeros_like(later)}
    for row in weights.entries():
        if row.tag == "league":
            with torch.no_grad():
                forecasts[row.model] = timm.create_model(row.name, pretrained=True).eval()(seen)
    scores = {}
    for name, forecast in forecasts.items():
        metrics = VideoMetrics()
        metrics.update(forecast, later)
        scores[name] = dict(metrics.compute().means)
    return scores


def test_weights_by_name_forecast_better_than_the_last_frame(league: Any, sample_scores: Any) -> None:
    for row in published(league):
        assert sample_scores[row.model]["mse"] < 0.6 * sample_scores["last frame"]["mse"], row.model


def test_what_the_page_says_of_the_rows_holds(league: Any, sample_scores: Any) -> None:
    page = " ".join((ROOT / "docs" / "league.md").read_text(encoding="utf-8").split())
    first = {row.model.removesuffix("_mmnist_tiny"): row for row in published(league)}
    scores = {name: json.loads(row.metrics) for name, row in first.items()}
    order = sorted(first, key=lambda name: scores[name]["mse"])

    def said(text: str) -> None:
        assert text.replace(" 0.", " .") in page, text

    def mse(name: str) -> float:
        value: float = scores[name]["mse"]
        return value

    numbers = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
               "thirteen", "fourteen"]  # fmt: skip
    assert len(first) == len(league.SYSTEMS)
    said(f"All {numbers[len(first)]} have their 48,000 clips")
    said(f"What {numbers[len(first)]} models say")
    papers = {family_of(f"{name}_mmnist_tiny").title for name in first}
    said(f"{numbers[len(first)].capitalize()} small models of {numbers[len(papers)]} systems")
    assert f"{numbers[len(first)].capitalize()} small models of {numbers[len(papers)]} systems" in (
        ROOT / "README.md"
    ).read_text(encoding="utf-8")
    assert order[:10] == [
        "mau", "tau", "predrnnpp", "simvp_gsta", "crevnet", "plasm", "stam", "phydnet", "predrnn", "simvp",
    ]  # fmt: skip
    again = [row for row in league.read() if row.stage == "league" and row.seed]
    assert sorted(row.model for row in again) == ["crevnet_mmnist_tiny", "plasm_mmnist_tiny"]
    # The nearest by its first seed.
    assert min((name for name in order if name != "plasm"), key=lambda name: abs(mse(name) - mse("plasm"))) == "crevnet"
    second = {row.model.removesuffix("_mmnist_tiny"): json.loads(row.metrics)["mse"] for row in again}
    apart = {name: abs(value - mse(name)) for name, value in second.items()}
    said(f"CrevNet's second seed lies {apart['crevnet']:.1f} from its first ({second['crevnet']:.1f})")
    said(f"PLA-SM's {apart['plasm']:.1f} ({second['plasm']:.1f})")
    assert (order[2], order[8]) == ("predrnnpp", "predrnn")
    steps = [mse(after) - mse(before) for before, after in itertools.pairwise(order)]
    assert max(steps[2:8]) < apart["crevnet"] < min(steps[0], steps[1], steps[8])
    curves = {name: json.loads(row.curve) for name, row in first.items()}
    said(f"with {first['mau'].parameters:,} parameters it is {mse('tau') - mse('mau'):.1f} ahead of TAU")
    said(f"and {mse('predrnnpp') - mse('mau'):.1f} of PredRNN++, and first from the fifth frame on")
    assert max(order, key=lambda name: first[name].memory) == "mau"
    assert sorted(order, key=lambda name: first[name].training)[:2] == ["stam", "mau"]
    said(
        f"with {first['predrnnpp'].parameters:,} parameters and {first['predrnnpp'].memory:.0f} MiB in training it is "
        f"third, {mse('plasm') - mse('predrnnpp'):.1f} ahead of PLA-SM, which has "
        f"{first['plasm'].parameters / 1e6:.1f} million and takes {first['plasm'].memory:.0f} MiB"
    )
    faster = [getattr(first["predrnn"], key) / getattr(first["predrnnpp"], key) for key in ("forward", "training")]
    said(f"trains {min(faster):.1f} times as fast as PredRNN++ or more, and is {mse('predrnn') - mse('predrnnpp'):.1f}")
    assert sorted(order, key=lambda name: first[name].parameters)[:3] == ["predrnn", "mim", "predrnnpp"]
    frames = {name: scores[name]["mse_per_frame"] for name in order}
    best = [min(order, key=lambda name: frames[name][place]) for place in range(10)]
    assert best == ["tau"] * 4 + ["mau"] * 6
    assert "predrnnpp" in sorted(order, key=lambda name: first[name].forward)[:3]
    assert min(order, key=lambda name: first[name].forward) == "stam"
    said(f"trains {first['tau'].training / first['mau'].training:.1f} times as fast as MAU")
    said(f"at the same speed it is {mse('simvp') - mse('simvp_gsta'):.1f} ahead of Inception")
    for key in ("forward", "training"):
        assert getattr(first["simvp"], key) == pytest.approx(getattr(first["simvp_gsta"], key), rel=0.1)
    said(f"{mse('stam') - mse('mau'):.1f} behind MAU, which has the same first authors")
    assert max(order, key=lambda name: first[name].forward) == "convlstm"
    assert min(order, key=lambda name: first[name].memory) == "convlstm"
    said(f"{mse('convlstm') - mse('mau'):.1f} behind MAU")
    by_training = sorted(order, key=lambda name: -first[name].training)
    assert (by_training[0], {*by_training[1:3]}) == ("convlstm", {"plasm", "mim"})
    said(f"{first['plasm'].training / first['mau'].training:.1f} times as fast as MAU, and it is")
    said(f"it is {mse('mim') - mse('plasm'):.1f} ahead of MIM")
    on_samples = {name: sample_scores[f"{name}_mmnist_tiny"]["mse"] for name in order}
    assert sorted(on_samples, key=on_samples.__getitem__)[:3] == ["mau", "crevnet", "predrnnpp"]
    said(
        "({mau:.1f}; CrevNet {crevnet:.1f}, PredRNN++ {predrnnpp:.1f}, PredRNN {predrnn:.1f}, STAM {stam:.1f}, TAU "
        "{tau:.1f}, PLA-SM {plasm:.1f})".format(**on_samples)
    )
    black = 0.7738  # as docs/models/plasm.md has it
    said(f"Black frames have {black:.3f} on the test clips, more than".replace("0.", "."))
    said(f"more than {numbers[sum(each['ssim'] < black for each in scores.values())]} of the fourteen")
    by_ssim = sorted(order, key=lambda name: -scores[name]["ssim"])
    assert [by_ssim.index(name) for name in ("e3dlstm", "simvp", "crevnet")] == [3, 6, 7]
    others = [name for name in order if name not in ("crevnet", "e3dlstm", "simvp", "phydnet")]
    assert [name for name in by_ssim if name in others] == others
    assert by_ssim.index("phydnet") == by_ssim.index("predrnn") + 1
    lost = {row.model.removesuffix("_mmnist_tiny"): row for row in league.read() if row.stage == "lost"}
    rose, faded = json.loads(lost["e3dlstm"].curve), json.loads(lost["e3dlstm"].metrics)
    said(f"rose from {rose[1]:.1f} after 9,600 training clips to {rose[-1]:.1f} at the end")
    assert min(rose) == rose[1]
    black = 173.66  # as docs/models/plasm.md has it
    said(f"({faded['mse']:.1f}, where black frames have {black:.1f})")
    assert all(error > 0.98 * black for error in faded["mse_per_frame"][-4:])
    said(f"With a quarter of the rate it comes to {mse('e3dlstm'):.1f}")
    # The rule applied to no other.
    assert not [name for name, curve in curves.items() if curve[-1] > 1.02 * min(curve)]
    # The trials of the shapes that went on, by rate of Muon.
    trials = {
        name: {row.lr: row.val_mse for row in league.read() if row.model == final.model and row.optimizer == "muon"
               and row.stage in ("shape", "recipe") and json.loads(row.shape) == json.loads(final.shape)}
        for name, final in first.items()
    }  # fmt: skip
    led = {name: each[0.004] - each[0.01] for name, each in trials.items() if each[0.01] < each[0.004]}
    assert list(dict(sorted(led.items(), key=lambda pair: -pair[1]))) == ["mim", "tau", "stam", "simvp_gsta", "mau"]
    said(
        "led .004 for five models: by {mim:.1f} for MIM, {tau:.1f} for TAU, {stam:.1f} for STAM, {simvp_gsta:.1f} for "
        "SimVP (gSTA) and {mau:.2f} for MAU".format(**led)
    )
    better = {
        (name, optimizer): min(
            row.val_mse for row in league.read() if row.model == final.model and row.optimizer == optimizer
            and row.stage in league.TRIALS and json.loads(row.shape) == json.loads(final.shape)
        ) for name, final in first.items() for optimizer in ("adam", "muon")
    }  # fmt: skip
    gains = [better[name, "adam"] - better[name, "muon"] for name in first]
    said(f"for every one of the fourteen, by {min(gains):.1f} to {max(gains):.1f}")
    higher = json.loads(lost["simvp_gsta"].metrics)["mse"]
    said(f"came to {higher:.1f} with it and to {mse('simvp_gsta'):.1f} with .004")
    stopped, kept_on = json.loads(lost["mim"].curve), json.loads(first["mim"].curve)
    said(f"had risen from {stopped[-2]:.1f} to {stopped[-1]:.1f}, was stopped after {4800 * len(stopped):,} clips")
    said(f"where .004 later stood at {kept_on[len(stopped) - 1]:.0f}")
    assert {name: row.lr for name, row in first.items() if row.lr != 0.004} == {"e3dlstm": 0.001}
    assert lost["e3dlstm"].lr == 0.004
    assert lost["mim"].lr == lost["simvp_gsta"].lr == 0.01
    chosen = {name: each[0.004] for name, each in trials.items()}
    early = sorted(chosen, key=chosen.__getitem__)
    assert (early[:2], early.index("tau")) == (["crevnet", "mau"], 5)
    assert order[-2:] == early[-2:] == ["predformer", "e3dlstm"]
