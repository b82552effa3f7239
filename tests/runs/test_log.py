import os
from pathlib import Path

import pytest

from plasm.runs.log import read_rows


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_as_a_log_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.jsonl")
    with pytest.raises(ValueError, match=r"log\.jsonl is a folder, pipe or device"):
        read_rows(tmp_path)
