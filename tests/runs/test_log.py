import os
from pathlib import Path

import pytest

from plasm import pictures
from plasm.runs import log
from plasm.runs.log import read_rows


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_as_a_log_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.jsonl")
    with pytest.raises(ValueError, match=r"log\.jsonl is a folder, pipe or device"):
        read_rows(tmp_path)


def test_each_row_is_written_and_the_curves_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "pictures", pictures)
    row = {"epoch": 1, "clips": 16, "loss": 0.1, "lr": 0.01, "clips_per_second": 9.0, "val_mse": 90.0}
    kept = log.RunLog(tmp_path)
    for epoch in (1, 2):
        kept.append({**row, "epoch": epoch, "clips": 16 * epoch})
    assert [each["clips"] for each in read_rows(tmp_path)] == [16, 32]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
