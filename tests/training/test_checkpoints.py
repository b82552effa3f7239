import errno
import fcntl
import os
from pathlib import Path

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
        RunFolder(tmp_path).add_to_log({"epoch": 3, "clips": 30, "loss": 0.1, "lr": 0.1, "val_mse": value})
    assert not (tmp_path / "log.jsonl").exists()
