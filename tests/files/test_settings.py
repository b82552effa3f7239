import os
import subprocess
import sys
from pathlib import Path

import pytest

from plasm.files import import_without_settings

MODULE = """
import os
{files}
found = [os.path.exists(file) for file in files]
"""


@pytest.mark.parametrize(
    "files",
    [
        'files = ["matplotlibrc", "pystepsrc", os.path.join(os.getcwd(), "pystepsrc"), "./matplotlibrc"]',
        'import pathlib\nfiles = [pathlib.Path("matplotlibrc"), pathlib.Path.cwd() / "pystepsrc"]',
    ],
)
def test_a_library_sees_no_settings_of_the_folder_while_it_is_imported(
    files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MATPLOTLIBRC", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    for name in ("matplotlibrc", "pystepsrc", "other"):
        (tmp_path / name).touch()
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "looks_around.py").write_text(MODULE.format(files=files))
    monkeypatch.delitem(sys.modules, "looks_around", raising=False)
    before = os.path.exists
    found = import_without_settings("looks_around")
    assert found.found == [False] * len(found.files)
    assert os.path.exists is before
    assert os.path.exists("matplotlibrc")


def test_what_the_user_named_and_what_lies_elsewhere_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere" / "matplotlibrc"
    elsewhere.parent.mkdir()
    for file in (elsewhere, tmp_path / "matplotlibrc", tmp_path / "other"):
        file.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path / "matplotlibrc"))
    files = [str(elsewhere), str(tmp_path / "matplotlibrc"), "other", "matplotlibrc"]
    (tmp_path / "looks_around.py").write_text(MODULE.format(files=f"files = {files}"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "looks_around", raising=False)
    assert import_without_settings("looks_around").found == [True, True, True, False]


def test_other_threads_see_the_folder_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "matplotlibrc").touch()
    (tmp_path / "asks_another.py").write_text(
        "import os, threading\nseen = []\n"
        "thread = threading.Thread(target=lambda: seen.append(os.path.exists('matplotlibrc')))\n"
        "thread.start(); thread.join()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "asks_another", raising=False)
    assert import_without_settings("asks_another").seen == [True]


def test_a_library_that_is_missing_leaves_nothing_changed() -> None:
    before = os.path.exists
    with pytest.raises(ImportError, match="no_such_library"):
        import_without_settings("no_such_library")
    assert os.path.exists is before


@pytest.mark.parametrize("module", ["matplotlib", "pysteps"])
def test_the_libraries_themselves_take_none(module: str, tmp_path: Path) -> None:
    pytest.importorskip(module)
    # A file that cannot be read would be an error or a warning, if it was looked into.
    (tmp_path / "matplotlibrc").write_text("figure.dpi: 33\nbackend: module://trap\n")
    (tmp_path / "pystepsrc").write_text('{"silent_import": false, "outputs": {"path_outputs": "trap"}}')
    program = (
        "import sys\nopened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(args[0]) if event == 'open' else None)\n"
        "from plasm.files import import_without_settings\n"
        f"import_without_settings({module!r})\nimport matplotlib\n"
        "assert matplotlib.rcParams['figure.dpi'] != 33\n"
        "assert 'trap' not in sys.modules\n"
        "import os\nhere = lambda name: os.path.dirname(os.path.abspath(name)) == os.getcwd()\n"
        "print([name for name in opened if isinstance(name, str) and here(name)])\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MATPLOTLIB", "PYSTEPS"))}
    command = [sys.executable, "-P", "-c", program] if sys.version_info >= (3, 11) else [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]", done.stdout
