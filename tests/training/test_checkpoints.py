import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from plasm.runs import RunFolder
from plasm.training import checkpoints


def test_a_checkpoint_is_saved_where_nothing_opened_for_reading_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []

    def fsync(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flushed.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    monkeypatch.setattr(os, "fsync", fsync)
    checkpoints.save({"a": torch.arange(3.0)}, {"step": 7, "name": "größe"}, tmp_path, 7)
    found = checkpoints.load_newest(tmp_path)
    assert found is not None
    assert found.values == {"step": 7, "name": "größe"}
    assert sorted(flushed) == ["state.json", "state.safetensors"]

    def full(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="Input/output"):
        checkpoints.save({"a": torch.arange(3.0)}, {}, tmp_path, 8)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_never_gets_into_the_log(tmp_path: Path, value: float) -> None:
    with pytest.raises(FloatingPointError, match="val_mse of epoch 3 is not finite"):
        RunFolder(tmp_path).log.append({"epoch": 3, "clips": 30, "loss": 0.1, "lr": 0.1, "val_mse": value})
    assert not (tmp_path / "log.jsonl").exists()


VALUES: dict[str, Any] = {"epoch": 1, "step": 3, "loss_sum": 0.1 + 0.2, "param_groups": [{"lr": 1e-3}]}


def save_two(folder: Path) -> Path:
    """Two checkpoints; the newer one."""
    for step in (7, 8):
        checkpoints.save({"a": torch.full((3,), step)}, {**VALUES, "step": step}, folder, step)
    return folder / "step_00000008"


def edit(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        file = path / "state.json"
        file.write_text(json.dumps(change(json.loads(file.read_text()))))

    return damage


def write(content: bytes) -> Callable[[Path], None]:
    return lambda path: (path / "state.json").write_bytes(content) and None  # type: ignore[func-returns-value]


def swap(path: Path) -> None:
    """The tensors of another step, whole."""
    (path / "state.safetensors").write_bytes((path.with_name("step_00000007") / "state.safetensors").read_bytes())


DAMAGES: dict[str, Callable[[Path], None]] = {
    "another epoch": edit(lambda state: {**state, "epoch": 0}),
    "another rate": edit(lambda state: {**state, "param_groups": [{"lr": 1e-2}]}),
    "a bit of a number": edit(lambda state: {**state, "loss_sum": 0.3}),
    "another type": edit(lambda state: {**state, "epoch": True}),
    "one more": edit(lambda state: {**state, "more": 1}),
    "one less": edit(lambda state: {key: value for key, value in state.items() if key != "loss_sum"}),
    "no digest": edit(lambda state: {key: value for key, value in state.items() if key != "sha256"}),
    "another digest": edit(lambda state: {**state, "sha256": [1]}),
    "in a list": edit(lambda state: [state]),
    "other tensors": swap,
    "null": write(b"null"),
    "a list": write(b"[1]"),
    "a number": write(b"7"),
    "text": write(b'"sha256"'),
    "nothing": write(b""),
    "zeros": write(bytes(512)),
    "not UTF-8": write(b"\xff\xfe\xfa"),
    "a long number": write(b'{"epoch": ' + b"9" * 10_000 + b"}"),
    "deep lists": write(b"[" * 100_000),
    "deep objects": write(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "no state.json": lambda path: (path / "state.json").unlink(),
    "no tensors": lambda path: (path / "state.safetensors").unlink(),
    "a folder": lambda path: ((path / "state.json").unlink(), (path / "state.json").mkdir())[0],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_said_and_the_one_before_taken(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newest = save_two(tmp_path)
    DAMAGES[damage](newest)
    with caplog.at_level(logging.WARNING):
        found = checkpoints.load_newest(tmp_path)
    assert found is not None
    assert found.values == {**VALUES, "step": 7}
    assert f"checkpoint {newest} is damaged" in caplog.text
    assert "trying the one before" in caplog.text
    assert "object is not" not in caplog.text


def test_a_checkpoint_that_is_whole_is_the_same_to_the_bit(tmp_path: Path) -> None:
    values = {**VALUES, "keys": {1: "one", 10: "ten", 9: float("inf")}, "größe": [None, True, -0.0, 5e-324]}
    checkpoints.save({"a": torch.arange(3)}, values, tmp_path, 3)
    found = checkpoints.load_newest(tmp_path)
    assert found is not None
    assert found.values == json.loads(json.dumps(values))
    assert str(found.values["größe"]) == "[None, True, -0.0, 5e-324]"


def test_the_sha256_of_the_tensors_alone_does_not_do(tmp_path: Path) -> None:
    """It would leave the values of state.json unchecked."""
    newest = save_two(tmp_path)
    tensors = hashlib.sha256((newest / "state.safetensors").read_bytes()).hexdigest()
    edit(lambda state: {**state, "sha256": tensors, "step": 5})(newest)
    found = checkpoints.load_newest(tmp_path)
    assert found is not None
    assert found.values["step"] == 7


def test_a_third_checkpoint_of_a_process_that_was_killed_while_it_deleted_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run at its end saves no more: what resumes it deletes it."""
    save_two(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save({"a": torch.arange(3)}, VALUES, tmp_path, 9)
    assert len(list(tmp_path.iterdir())) == 3
    checkpoints.keep_last(tmp_path, 9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000008", "step_00000009"]


def test_what_lies_beside_checkpoints_is_neither_read_nor_deleted(tmp_path: Path) -> None:
    save_two(tmp_path)
    others = [tmp_path / name for name in ("step_00000008.bak", "step_00000009 copy", "step_best")]
    for path in others:
        path.mkdir()
    (tmp_path / "step_00000010").write_text("a file")
    for step in (99_999_999, 100_000_000):
        checkpoints.save({"a": torch.arange(3)}, VALUES, tmp_path, step)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted([*(path.name for path in others), "step_00000010", "step_100000000", "step_99999999"])
    checkpoints.keep_last(tmp_path, 8)
    assert all(path.exists() for path in others)
    assert checkpoints.load_newest(tmp_path) is None
