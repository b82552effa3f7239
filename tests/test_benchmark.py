import csv
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import fails, ok
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import nn

from plasm import benchmark, weights

SMALL = ["encoder_dim=4", "translator_dim=16", "translator_depth=2", "encoder_depth=2"]
ARGUMENTS = [part for item in SMALL for part in ("--model-arg", item)]


def test_the_command_measures_models_in_both_modes(tmp_path: Path) -> None:
    out = ok(
        "benchmark", "simvp_mmnist", "tau_mmnist", "--train", "--rounds", 2, "--batch-size", 1, "--device", "cpu",
        "--out", tmp_path / "b", *ARGUMENTS,
    )  # fmt: skip
    with (tmp_path / "b" / "benchmark.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["mode"]) for row in rows] == [
        (model, mode) for model in ("simvp_mmnist", "tau_mmnist") for mode in ("inference", "training")
    ]
    for row in rows:
        assert 0 < float(row["lowest"]) <= float(row["clips_per_second"]) <= float(row["highest"])
        assert float(row["frames_per_second"]) == pytest.approx(10 * float(row["clips_per_second"]))
        assert 0 < float(row["share"]) < 2
    # The activations that a backward pass needs are kept.
    assert int(rows[1]["peak_memory"]) > int(rows[0]["peak_memory"]) > 0
    table = (tmp_path / "b" / "benchmark.md").read_text(encoding="utf-8")
    assert table in out
    assert "| 32.15" in table
    assert "| 21.15" in table
    assert (tmp_path / "b" / "benchmark.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_takes_the_table_alone_and_gives_it_back(tmp_path: Path) -> None:
    args = {"encoder_dim": 4, "translator_dim": 16, "translator_depth": 2}
    rows = benchmark.measure(["tau_taxibj"], torch.device("cpu"), 1, rounds=1, model_args=args)
    benchmark.write_csv(rows, tmp_path / "a.csv")
    assert benchmark.read_csv(tmp_path / "a.csv") == rows
    (tmp_path / "a.csv").write_text("model,mode\ntau_mmnist,inference\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.csv is no table of plasm benchmark"):
        benchmark.read_csv(tmp_path / "a.csv")
    out = tmp_path / "results" / "b.csv"
    ok("benchmark", "tau_taxibj", "--rounds", 1, "--batch-size", 1, "--device", "cpu", "--out", out, *ARGUMENTS[:6])
    assert [file.name for file in out.parent.iterdir()] == ["b.csv"]
    assert benchmark.read_csv(out)[0].model == "tau_taxibj"


def test_what_cannot_be_measured_is_an_error(tmp_path: Path) -> None:
    assert "no model of plasm is called resnet18" in fails("benchmark", "resnet18", "--out", tmp_path)
    assert "must be positive" in fails("benchmark", "tau_mmnist", "--rounds", 0, "--out", tmp_path)
    with pytest.raises(ValueError, match="runtime is one of eager, compile"):
        benchmark.measure(["tau_mmnist"], torch.device("cpu"), runtime="none")


def test_runtimes_and_threads_are_measured_in_turn() -> None:
    args = {"encoder_dim": 4, "translator_dim": 16, "translator_depth": 2, "encoder_depth": 2}
    before = torch.get_num_threads()
    rows = benchmark.measure(
        ["tau_taxibj"], torch.device("cpu"), 1, runtime=("eager", "onnx"), rounds=1, model_args=args, threads=(1, 2)
    )
    assert torch.get_num_threads() == before
    assert [(row.threads, row.runtime) for row in rows] == [(1, "eager"), (1, "onnx"), (2, "eager"), (2, "onnx")]
    assert [row.difference for row in rows[::2]] == [0, 0]
    assert all(0 < row.difference < 1e-3 for row in rows[1::2])
    with pytest.raises(ValueError, match="onnx: measured on the CPU and in float32 only"):
        benchmark.measure(["tau_taxibj"], torch.device("cpu"), dtype=torch.bfloat16, runtime="onnx")


def test_the_share_of_the_peak_counts_what_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product takes 1 s in the first round and 3 s in the others, a forecast 2 s, a training step 4 s."""

    def in_turn(steps: Any, rounds: int, device: torch.device) -> list[list[float]]:
        assert len(steps) == 3
        return [[1.0, 3.0, 3.0], [2.0] * 3, [4.0] * 3]

    args = {"encoder_dim": 4, "translator_dim": 16, "translator_depth": 2, "encoder_depth": 2}
    monkeypatch.setattr(benchmark, "_in_turn", in_turn)
    monkeypatch.setattr(benchmark, "peak_memory", lambda step, device: 0)
    forward, training = benchmark.measure(["tau_taxibj"], torch.device("cpu"), 2, rounds=3, train=True, model_args=args)
    # A product of 1,024 x 1,024 matrices, 20 times over, is twice as many operations as multiply-adds.
    peak = 2 * 1024**3 * 20 / 3
    assert (forward.clips_per_second, training.clips_per_second) == (1.0, 0.5)
    assert forward.share == pytest.approx(1.0 * 2 * forward.multiply_adds / peak)
    # Backward counts twice as much as forward.
    assert training.share == pytest.approx(0.5 * 3 * 2 * forward.multiply_adds / peak)


def test_peak_memory_counts_what_is_held_at_once() -> None:
    device, megabyte = torch.device("cpu"), 2**18

    def one_after_the_other() -> None:
        for _ in range(3):
            torch.empty(megabyte)

    held = [torch.empty(0)]

    def at_once() -> None:
        held[:] = [torch.empty(megabyte) for _ in range(3)]
        held.clear()

    assert benchmark.peak_memory(one_after_the_other, device) == pytest.approx(2**20, rel=0.01)
    assert benchmark.peak_memory(at_once, device) == pytest.approx(3 * 2**20, rel=0.01)


def test_published_numbers_have_a_source_and_never_mix_lengths() -> None:
    rows = benchmark.published()
    assert len({(row.model, row.epochs, row.source) for row in rows}) == len(rows)
    assert all(row.source and row.mse > 0 for row in rows)
    by = {(row.model, row.epochs): row.mse for row in rows}
    assert (by["simvp_gsta_mmnist", 200], by["simvp_gsta_mmnist", 2000]) == (26.69, 15.05)
    assert by["plasm_mmnist", 2000] == 18.4
    assert {row.whose for row in rows} == {"OpenSTL", "PLA-SM's paper", "PredFormer's paper"}


def test_published_and_measured_errors_stand_in_columns_of_their_own() -> None:
    own = weights.entry("plasm_mmnist_tiny")
    row = benchmark.Measurement(
        model="plasm_mmnist_tiny", mode="inference", runtime="eager", device="cpu", hardware="AVX2", torch="2.6.0",
        dtype="float32", batch_size=1, parameters=1, multiply_adds=1, clips_per_second=1.0, lowest=1.0, highest=1.0,
        frames_per_second=10.0, peak_memory=1, share=0.1, threads=1, difference=0.0,
    )  # fmt: skip
    titles, measured, published = benchmark.table([row, dataclasses.replace(row, model="plasm_mmnist")])
    assert titles[-3:] == (
        "published, 200 epochs (whose)", "published, 2,000 epochs (whose)", "measured here (weights, clips)",
    )  # fmt: skip
    assert measured[-3:] == ("-", "-", f"{own.metrics['mse']:.2f} ({own.tag}, {own.clips:,})")
    # Nobody trained ours: the paper's error is the paper's.
    assert published[-3:] == ("-", "18.40 (PLA-SM's paper)", "-")


def test_no_label_of_the_picture_lies_on_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **kwargs: figures.append(figure))
    rows = benchmark.read_csv(Path(__file__).parents[1] / "docs/results/benchmark.csv")
    benchmark.picture([*rows, dataclasses.replace(rows[0], model="plasm_mmnist_tiny")], tmp_path / "a.png")
    titles = [axis.get_title() for axis in figures[0].axes][::2]
    assert titles == ["published, 200 epochs", "published, 2,000 epochs", "measured here, clips as in the label"]
    for axis in figures[0].axes:
        for text in axis.texts:
            text.update_positions(figures[0].canvas.get_renderer())
        # Without the lines to the points.
        boxes = [Text.get_window_extent(text) for text in axis.texts]
        assert boxes
        for number, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:number])


def test_another_runtime_is_a_function_of_model_and_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def runtime(model: nn.Module, clip: torch.Tensor) -> nn.Module:
        seen.append(tuple(clip.shape))
        return model

    monkeypatch.setitem(benchmark.RUNTIMES, "other", runtime)
    args = {"encoder_dim": 4, "translator_dim": 16, "translator_depth": 2}
    (row,) = benchmark.measure(["tau_taxibj"], torch.device("cpu"), 1, runtime="other", rounds=1, model_args=args)
    assert seen == [(1, 4, 2, 32, 32)]
    assert row.runtime == "other"
