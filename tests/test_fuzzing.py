"""Short runs of tools/fuzz.py, whose long ones docs/fuzzing.md has."""

import importlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture(autouse=True)
def _tools(monkeypatch: pytest.MonkeyPatch) -> None:
    if not TOOLS.is_dir():
        pytest.skip("the tools are in the repository, not in the package")
    monkeypatch.syspath_prepend(str(TOOLS))


@pytest.mark.parametrize("name", ["weights", pytest.param("clips", marks=pytest.mark.slow)])
def test_what_is_damaged_is_refused_or_rightly_taken(name: str, tmp_path: Path) -> None:
    case = importlib.import_module("fuzzing.case")
    fuzzer = importlib.import_module(f"fuzzing.{name}").FUZZER
    shared = tmp_path / "shared"
    shared.mkdir()
    state, found = fuzzer.prepare(shared), {}
    for number in range(40):
        own = tmp_path / str(number)
        own.mkdir()
        found[number] = case.judge(fuzzer.create(np.random.default_rng([1, number]), number, own, state))
    assert {number: outcome for number, outcome in found.items() if outcome.what in ("wrongly taken", "crashed")} == {}
    assert {outcome.what for outcome in found.values()} == {"refused", "taken"}
    assert "| all | 40 |" in importlib.import_module("fuzz").table(found)


def test_a_case_is_judged_by_how_it_ends() -> None:
    case = importlib.import_module("fuzzing.case")

    def fail(error: Exception) -> None:
        raise error

    ends = {
        "refused": case.Case("x", lambda: fail(ValueError("a.npy is damaged")), None, "a.npy"),
        "taken": case.Case("x", lambda: 3, lambda result: result == 3),
        "wrongly taken": case.Case("x", lambda: 4, lambda result: result == 3),
    }
    assert {name: case.judge(each).what for name, each in ends.items()} == {name: name for name in ends}
    for error in (ValueError("no name of a file"), ValueError(""), KeyError("a.npy"), RuntimeError("a.npy")):
        crash = case.Case("x", lambda error=error: fail(error), lambda _: True, "a.npy")
        assert case.judge(crash).what == "crashed"
    assert case.judge(case.Case("x", lambda: 3)).what == "wrongly taken"
    assert sys.path[0] == str(TOOLS)


@pytest.mark.parametrize(
    ("text", "clear"),
    [
        ("a.npy is damaged", True),
        ("it is damaged", False),
        ("a.npy: 'int' object is not iterable", False),
        ("a.npy: invalid literal for int()", False),
        ("a.npy: \x1b[2J", False),
        ("a.npy " + "x" * 30_000, False),
        ("a.npy is damaged\nand more", True),
    ],
)
def test_an_error_is_clear_if_it_names_the_file_and_holds_nothing_of_pythons(text: str, clear: bool) -> None:
    case = importlib.import_module("fuzzing.case")
    assert (case.unclear(text, "a.npy") is None) == clear
    assert case.unclear(text, "") is not None


class Scripted:
    """A process that says what it is told, and then nothing."""

    pid, exitcode = None, None

    def __init__(self, said: list[list[Any]], args: tuple[Any, ...]) -> None:
        self.said, self.results = said, args[-1]

    def start(self) -> None:
        self.kept = self.results
        for message in self.said.pop(0) if self.said else []:
            self.results.send(message)
        self.results = os.dup(self.results.fileno())

    def kill(self) -> None:
        os.close(self.results)

    def join(self) -> None:
        pass


def test_a_case_that_hangs_and_a_fuzzer_that_does_not_start_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fuzzer, case = importlib.import_module("fuzz"), importlib.import_module("fuzzing.case")
    taken, ready = case.Outcome("x", "taken", ""), ("prepared", None)
    said = [[ready, (0, None), (0, taken), (1, None)], [ready, (2, None), (2, taken), (3, None), (3, taken)]]
    context = SimpleNamespace(Process=lambda target, args: Scripted(said, args))
    monkeypatch.setattr(fuzzer.multiprocessing, "get_context", lambda _: context)
    monkeypatch.setattr(fuzzer, "_SECONDS", 0.05)
    monkeypatch.setattr(fuzzer, "_PREPARATION", 0.05)
    found = dict(fuzzer.outcomes("kills", 0, [0, 1, 2, 3, 4, 5], tmp_path))
    assert [outcome.what for outcome in found.values()] == ["taken", "crashed", "taken", "taken", "crashed", "crashed"]
    assert [outcome.why for outcome in found.values()][1] == "hung"
    assert found[5].kind == "not tried"
    assert "| all | 6 |" in fuzzer.table(found)


def test_the_network_and_the_memory_of_a_case_have_an_end() -> None:
    program = (
        "from fuzzing.isolation import limit_memory, without_network\nimport socket, sys\n"
        "if without_network():\n"
        "    try: socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5); raise SystemExit(1)\n"
        "    except OSError: pass\n"
        "limit_memory(1 << 28)\n"
        "try: bytearray(1 << 30); raise SystemExit(2)\n"
        "except MemoryError: pass\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", program, str(server.getsockname()[1])]
        done = subprocess.run(command, cwd=TOOLS, capture_output=True, text=True, check=False)
    assert done.returncode in ((0,) if sys.platform.startswith("linux") else (0, 2)), done.stderr
