"""Short campaigns of tools/campaign.py, whose long ones docs/campaigns.md has."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture(autouse=True)
def _tools(monkeypatch: pytest.MonkeyPatch) -> None:
    if not TOOLS.is_dir():
        pytest.skip("the tools are in the repository, not in the package")
    monkeypatch.syspath_prepend(str(TOOLS))


@pytest.mark.parametrize("name", ["weights", "clips"])
def test_what_is_damaged_is_refused_or_rightly_taken(name: str, tmp_path: Path) -> None:
    case = importlib.import_module("campaigns.case")
    campaign = importlib.import_module(f"campaigns.{name}").CAMPAIGN
    shared = tmp_path / "shared"
    shared.mkdir()
    state, found = campaign.prepare(shared), {}
    for number in range(40):
        own = tmp_path / str(number)
        own.mkdir()
        found[number] = case.judge(campaign.make(np.random.default_rng([1, number]), number, own, state))
    assert {number: outcome for number, outcome in found.items() if outcome.what in ("wrongly taken", "crashed")} == {}
    assert {outcome.what for outcome in found.values()} == {"refused", "taken"}
    assert "| all | 40 |" in importlib.import_module("campaign").table(found)


def test_a_case_is_judged_by_how_it_ends() -> None:
    case = importlib.import_module("campaigns.case")

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
