from contextlib import suppress
from pathlib import Path

from plasm.files import atomic_write


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
