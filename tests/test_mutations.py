"""tools/mutations.py."""

import importlib
from pathlib import Path

import pytest


def test_a_name_that_no_fault_has_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "tools"))
    mutations = importlib.import_module("mutations")
    assert mutations.main(["a typo"]) == 1
    assert "no fault is called a typo" in capsys.readouterr().out
