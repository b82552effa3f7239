from contextlib import suppress
from pathlib import Path

from plasm.files import atomic_write, make_folder


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


def test_folders_that_stay_empty_are_not_left(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for folder in (tmp_path / "mine", tmp_path / "mine" / "a" / "b"):
        with suppress(KeyError), make_folder(folder):
            assert folder.is_dir()
            raise KeyError
        assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]
    with make_folder(tmp_path / "mine" / "a" / "b"):
        (tmp_path / "mine" / "a" / "c").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "c", "mine"]
