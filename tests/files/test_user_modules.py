import sys
from pathlib import Path

import pytest

from plasm.data import create_dataset
from plasm.files import import_named
from plasm.models import create_model


def test_what_a_user_names_is_imported_from_the_folder_that_is_on_the_path_at_no_other_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    before = list(sys.path)
    (tmp_path / "named_here.py").write_text("import sys\nWHERE = sys.path[-1]")
    (tmp_path / "cmd.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.delitem(sys.modules, "cmd", raising=False)
    named = import_named("named_here")
    assert Path(named.WHERE) == tmp_path
    assert sys.path == before
    assert hasattr(import_named("cmd"), "Cmd")  # what is installed comes first
    (tmp_path / "broken_here.py").write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        import_named("broken_here")
    assert sys.path == before


@pytest.mark.parametrize("module", [".", "..a", "a..b", "a b", "/tmp/a", "a.py/"])
def test_what_is_no_name_of_a_module(module: str) -> None:
    with pytest.raises(ImportError, match="is no name of a module"):
        create_model(f"{module}:net")
    with pytest.raises(ImportError, match="is no name of a module"):
        create_dataset(f"{module}:clips", Path(), "train")
