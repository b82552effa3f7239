"""benchmarks/recurrent_training.py: which curves are kept, and which are drawn together."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from plasm.data import SAMPLES


def test_curves_of_other_clips_are_neither_taken_nor_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    script, file, drawn = importlib.import_module("recurrent_training"), tmp_path / "curves.json", list[Any]()
    axes = type(script.plt.subplots()[1])
    plot = axes.plot
    monkeypatch.setattr(axes, "plot", lambda *args, **kwargs: drawn.append(kwargs["label"]) or plot(*args, **kwargs))
    trained: list[tuple[str, int]] = []

    def train(name: str, _: Any, val_set: Any, *__: Any) -> list[tuple[int, float]]:
        trained.append((name, len(val_set)))
        if name == "mau_mmnist":
            # Another process, which began at the same time, has written its own.
            file.write_text(json.dumps({**json.loads(file.read_text()), "of another": [[0, 1.0]]}))
        return [(0, 1.0), (8, 0.5)]

    monkeypatch.setattr(script, "train", train)
    for name, count in (("predrnn", 2), ("predrnn", 3), ("predrnn", 3), ("mau", 3)):
        told = ["--data-dir", str(SAMPLES), "--out", str(tmp_path / "curves.png"), "--clips", "8", "--val-clips", count]
        CliRunner().invoke(script.main, [f"{name}_mmnist", *map(str, told)], catch_exceptions=False)
    assert trained == [("predrnn_mmnist", 2), ("predrnn_mmnist", 3), ("mau_mmnist", 3)]
    assert drawn[-2:] == ["predrnn_mmnist, rate 0.002", "mau_mmnist, rate 0.002"]
    assert len(drawn) == 5
    assert "of another" in script.read(file)
    assert (tmp_path / "curves.png").is_file()
