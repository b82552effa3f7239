import subprocess
import sys
from pathlib import Path

import pytest
from video_files import frames, write_video

from plasm.data import open_source


def test_without_pyav_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_video(tmp_path / "a.avi", frames(2))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"pip install 'plasm-video\[video\]'"):
        open_source(file, 3)


def test_the_library_alone_needs_none_of_them() -> None:
    code = (
        "import sys\nfor name in ('av', 'h5py', 'tqdm', 'click'): sys.modules[name] = None\n"
        "import plasm.data\nassert 'kth' in plasm.data.list_datasets()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
