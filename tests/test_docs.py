"""The checks of the documentation find what they are there to find."""

import csv
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from plasm import weights
from plasm.benchmark import Measurement, write_csv

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def check() -> ModuleType:
    for library in ("markdown", "jupytext", "nbclient"):
        pytest.importorskip(library)
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module("check")
    finally:
        sys.path.remove(str(DOCS))


def test_links_of_a_page(check: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "other.md").write_text("# A `name`: and more\n\n## Twice\n\n## Twice\n", encoding="utf-8")
    page.write_text(
        "[a](other.md) [b](other.md#a-name-and-more) [c](other.md#twice_1) [d](#here) [e](https://example.org/#x)\n"
        "[f](none.md) [g](other.md#none) [h](other.md#twice_2)\n\n## Here\n",
        encoding="utf-8",
    )
    assert list(check.broken_links(page)) == [
        "page.md: no file none.md",
        "page.md: no heading none in other.md",
        "page.md: no heading twice_2 in other.md",
    ]


def test_examples_leave_nothing_behind(check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text("```python\nfrom pathlib import Path\nPath('runs').mkdir()\n```\n\n```python\nPath('a')\n```\n")
    for _ in range(2):
        assert [problem.splitlines()[0] for problem in check.failing_examples(page)] == [
            "page.md: NameError(\"name 'Path' is not defined\") in"
        ]
        assert list(tmp_path.iterdir()) == [page]
        assert Path.cwd() == tmp_path


def test_what_a_merge_leaves(check: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Title\n=====\n\na <<<<<<< b\n\n> quoted\n", encoding="utf-8")
    assert not list(check.conflicts(page))
    page.write_text("a\n<<<<<<< HEAD\nb\n=======\nc\n>>>>>>> 527c239 (d)\n", encoding="utf-8")
    assert len(list(check.conflicts(page))) == 3


def test_numbers_typed_by_hand(check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "measured_numbers", lambda: {"12.34": "net.tag"})
    page = tmp_path / "page.md"
    page.write_text("An MSE of 112.34, 12.345 and 1.12.34\n```\n12.34 of a program\n```\n", encoding="utf-8")
    assert not list(check.typed_numbers(page))
    page.write_text("An MSE of 12.34.\n", encoding="utf-8")
    assert list(check.typed_numbers(page)) == ["page.md: 12.34 is typed by hand; use <!-- table: weights --> (net.tag)"]


def test_sizes_typed_by_hand(check: ModuleType, tmp_path: Path) -> None:
    page, size = tmp_path / "page.md", check.tables.summary("plasm_taxibj").parameters / 1e6
    page.write_text(f"A net has {size:.2f} M\n`plasm_taxibj` {size + 1:.2f} M\n", encoding="utf-8")
    assert not list(check.typed_numbers(page))
    page.write_text(f"`plasm_taxibj` has {size:.2f} M\n", encoding="utf-8")
    (problem,) = check.typed_numbers(page)
    assert "plasm_taxibj" in problem


def test_links_of_the_site(check: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "index.html").write_text('<h1 id="there"></h1>', encoding="utf-8")
    (tmp_path / "site.css").write_text('@import "https://fonts.example/a.css";', encoding="utf-8")
    (tmp_path / "index.html").write_text(
        '<a href="sub/#there">1</a><a href="https://example.org">2</a><img src="none.png"><a href="sub/#gone">3</a>'
        '<script src="https://example.org/x.js"></script>',
        encoding="utf-8",
    )
    assert sorted(check.site_problems(tmp_path)) == [
        "index.html: <script> asks another host for https://example.org/x.js",
        "index.html: no anchor sub/#gone",
        "index.html: none.png is not there",
        "site.css: asks another host for https://fonts.example/a.css",
    ]


def test_tables_of_measurements(check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def row(runtime: str, threads: int, speed: float, mode: str = "inference") -> Measurement:
        return Measurement(
            "tau_mmnist", mode, runtime, "cpu", "AVX2", "2.6.0", "float32", 1, 2_000_000, 3_000_000_000, speed,
            speed - 1, speed + 1, 10 * speed, 2**20, 0.5, threads, 0.0 if runtime == "eager" else 2e-5,
        )  # fmt: skip

    monkeypatch.setattr(check.tables, "RESULTS", tmp_path)
    rows = [row("eager", 1, 10), row("onnx", 1, 25), row("eager", 2, 16), row("onnx", 2, 24)]
    write_csv(rows, tmp_path / "runtime.csv")
    table = check.tables.runtime().splitlines()
    assert table[0] == "Measured on cpu (AVX2), torch 2.6.0, float32, batch 1, 1 and 2 threads."
    assert [line.split(" | ")[5] for line in table[4:]] == ["1.00", "2.50", "1.00", "1.50"]
    assert table[5] == "| `tau_mmnist` | onnx | 1 | 25.0 | 24.0 to 26.0 | 2.50 | 2e-05 |"
    write_csv([row("eager", 1, 10), row("eager", 1, 2, "training")], tmp_path / "benchmark.csv")
    table = check.tables.benchmark().splitlines()
    assert "threads" not in table[2]
    # A training step has no difference from eager; published errors stand beside the model.
    assert [line.split(" | ")[1] for line in table[4:]] == ["inference", "training"]
    assert "24.60" in table[4]
    assert check.tables.benchmark_picture().startswith(b"\x89PNG")


def test_the_league_is_in_order_whatever_diverged(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = check.tables.RESULTS / "league.csv"
    with file.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["stage"] == "league"]
    monkeypatch.setattr(check.tables, "RESULTS", tmp_path)
    for row, value in zip(rows[:4], ("70.0", "nan", "90.0", "60.0"), strict=True):
        row["val_mse"], row["metrics"] = value, ""
    # Where the error on the test clips is known, it counts.
    rows[0]["metrics"] = '{"mse": 95.0}'
    with (tmp_path / "league.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows[:4])
    lines = check.tables.league().splitlines()[2:]
    assert [line.split(" | ")[6] for line in lines] == ["60.0", "90.0", "70.0", "nan"]


def test_a_model_stands_beside_the_error_of_its_default_weights(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check.tables, "families", lambda: {"plasm": ["plasm_mmnist", "plasm_mmnist_tiny"]})
    titles, _, *lines = (line.strip("| ").split(" | ") for line in check.tables.all_models().splitlines())
    row = weights.entry("plasm_mmnist_tiny")
    assert titles[-1] == "measured here (weights, clips)"
    assert [line[-1] for line in lines] == ["-", f"{row.metrics['mse']:.1f} ({row.tag}, {row.clips:,})"]
    assert lines[0][-2] == "18.4"


def test_the_drawings_are_those_of_the_program(check: ModuleType) -> None:
    assert check.figures.stale() == []
