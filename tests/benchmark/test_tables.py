import dataclasses
from pathlib import Path

import pytest
import torch
from commands import ok

from plasm import benchmark, weights


def test_a_file_takes_the_table_alone_and_gives_it_back(tmp_path: Path) -> None:
    args = {"encoder_dim": 4, "translator_dim": 16, "translator_depth": 2}
    rows = benchmark.measure(["tau_taxibj"], torch.device("cpu"), 1, rounds=1, model_args=args)
    benchmark.write_csv(rows, tmp_path / "a.csv")
    assert benchmark.read_csv(tmp_path / "a.csv") == rows
    for text in ("model,mode\ntau_mmnist,inference\n", "", "model,mode\n", "x" * 200_000):
        (tmp_path / "a.csv").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"a\.csv is no table of plasm benchmark"):
            benchmark.read_csv(tmp_path / "a.csv")
    given = [part for name, value in args.items() for part in ("--model-arg", f"{name}={value}")]
    out = tmp_path / "results" / "b.csv"
    ok("benchmark", "tau_taxibj", "--rounds", 1, "--batch-size", 1, "--device", "cpu", "--out", out, *given)
    assert [file.name for file in out.parent.iterdir()] == ["b.csv"]
    assert benchmark.read_csv(out)[0].model == "tau_taxibj"


def test_published_and_measured_errors_stand_in_columns_of_their_own() -> None:
    own = weights.entry("plasm_mmnist_tiny")
    row = benchmark.Measurement(
        model="plasm_mmnist_tiny", mode="inference", runtime="eager", device="cpu", hardware="AVX2", torch="2.6.0",
        dtype="float32", batch_size=1, parameters=1, macs=1, clips_per_second=1.0, lowest=1.0, highest=1.0,
        frames_per_second=10.0, peak_memory=1, peak_ratio=0.1, threads=1, difference=0.0,
    )  # fmt: skip
    titles, measured, published = benchmark.table([row, dataclasses.replace(row, model="plasm_mmnist")])
    assert titles[-3:] == (
        "published, 200 epochs (whose)", "published, 2,000 epochs (whose)", "measured here (weights, clips)",
    )  # fmt: skip
    assert measured[-3:] == ("-", "-", f"{own.metrics['mse']:.2f} ({own.tag}, {own.clips:,})")
    # Nobody trained ours: the paper's error is the paper's.
    assert published[-3:] == ("-", "18.40 (PLA-SM's paper)", "-")
