import logging
from pathlib import Path

import numpy as np
import pytest
from video_files import frames, write_images

from plasm.data.sources import find_images, find_sources, find_videos, natural_key, open_source, open_sources


def test_a_damaged_file_among_a_thousand_is_named_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(1000):
        np.save(tmp_path / f"{number}.npy", np.zeros((2, 4, 4), np.uint8))
    (tmp_path / "4.npy").write_bytes((tmp_path / "4.npy").read_bytes()[:140])
    sources = find_sources(tmp_path)
    with pytest.raises(ValueError, match=r"1 of 1000 sources cannot be used: .*4\.npy.*on_error=skip"):
        open_sources(sources, lambda path: open_source(path, 1), "raise")
    with caplog.at_level(logging.WARNING):
        streams = open_sources(sources, lambda path: open_source(path, 1), "skip")
    assert len(streams) == 999
    assert "1 of 1000" in caplog.text
    assert "4.npy" in caplog.text
    with pytest.raises(ValueError, match="raise or skip"):
        open_sources(sources, lambda path: [], "ignore")  # type: ignore[arg-type]


def test_what_is_found_and_in_which_order(tmp_path: Path) -> None:
    write_images(tmp_path / "b" / "10", frames(1))
    write_images(tmp_path / "b" / "9", frames(2))
    for name in ("a.mp4", "c.seq", "d.npz", "notes.txt", ".hidden.mp4"):
        (tmp_path / name).write_bytes(b"")
    found = [path.relative_to(tmp_path).as_posix() for path in find_sources(tmp_path)]
    assert found == ["a.mp4", "b/9", "b/10", "c.seq", "d.npz"]
    assert [path.name for path in find_videos(tmp_path)] == ["a.mp4", "c.seq"]
    assert len(find_images(tmp_path)) == 3
    assert sorted(["10", "9", "a1"], key=natural_key) == ["9", "10", "a1"]
