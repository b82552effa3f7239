from contextlib import suppress
from pathlib import Path

import pytest

from plasm.files import atomic_write, check_writable


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    for content in ("one", "two"):
        with atomic_write(file) as beside:
            beside.write_text(content[:1], encoding="utf-8")
            assert not file.exists() or file.read_text(encoding="utf-8") == "one"
            beside.write_text(content, encoding="utf-8")
        assert file.read_text(encoding="utf-8") == content
    with suppress(KeyError), atomic_write(file) as beside:
        beside.write_text("half", encoding="utf-8")
        raise KeyError
    assert file.read_text(encoding="utf-8") == "two"
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_written_is_known_before(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "a" / "b"):
        check_writable(path)
    with pytest.raises(NotADirectoryError, match=r"file is a file; .* cannot be written below it"):
        check_writable(tmp_path / "file" / "a" / "b")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
