from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from plasm import weights

TENSORS = {"encoder.a": torch.arange(6.0).view(2, 3), "model_dim": torch.ones(2)}


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in TENSORS.items()}


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        prefixed("module."),
        {"state_dict": prefixed("model."), "epoch": 3, "hyper_parameters": {"lr": 0.1}, "callbacks": {}},
        {"model": prefixed("_orig_mod.module."), "optimizer": {"state": {}}},
        {"model_state_dict": prefixed("module._orig_mod.")},
        {"state_dict": OrderedDict(TENSORS), "loops": None},
    ],
)
def test_tensors_come_out_with_plain_names(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "old.ckpt")
    read = weights.read_checkpoint(tmp_path / "old.ckpt")
    assert list(read) == list(TENSORS)
    assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items())


def test_tied_and_strided_tensors_can_be_saved(tmp_path: Path) -> None:
    tensor = torch.rand(3, 4)
    torch.save({"a": tensor, "b": tensor, "c": tensor.t(), "d": tensor[1:]}, tmp_path / "old.pth")
    weights.save_tensors(weights.read_checkpoint(tmp_path / "old.pth"), tmp_path / "new.safetensors")
    again = weights.load_tensors(tmp_path / "new.safetensors")
    assert torch.equal(again["a"], tensor)
    assert torch.equal(again["b"], tensor)
    assert torch.equal(again["c"], tensor.t())
    assert torch.equal(again["d"], tensor[1:])


class Bomb:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return open, (str(self.file), "w")


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    torch.save({"state_dict": TENSORS, "callback": Bomb(tmp_path / "opened")}, tmp_path / "old.ckpt")
    with pytest.raises(ValueError, match=r"old\.ckpt holds Python objects beside tensors"):
        weights.read_checkpoint(tmp_path / "old.ckpt")
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "holds a list, not tensors"),
        ({"epoch": 3, "lr": 0.1}, "no dense tensor with a name: epoch, lr"),
        ({"model.a": torch.ones(1), "a": torch.ones(1)}, "two tensors that would be called a"),
        ({}, "not tensors with names"),
        ({"a": torch.ones(2).to_sparse(), 3: torch.ones(1)}, "no dense tensor with a name: a, 3"),
    ],
)
def test_what_is_no_checkpoint_is_an_error(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "old.pth")
    with pytest.raises(ValueError, match=message):
        weights.read_checkpoint(tmp_path / "old.pth")


def test_files_that_are_not_there_or_not_whole(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not there"):
        weights.read_checkpoint(tmp_path / "none.pth")
    torch.save(TENSORS, tmp_path / "old.pth")
    content = (tmp_path / "old.pth").read_bytes()
    for part in (content[: len(content) // 2], content[:10], b"no checkpoint at all", b""):
        (tmp_path / "part.pth").write_bytes(part)
        with pytest.raises(ValueError, match=r"part\.pth"):
            weights.read_checkpoint(tmp_path / "part.pth")


def test_damaged_bytes_are_never_more_than_a_clear_error(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "old.pth")
    content, refused = (tmp_path / "old.pth").read_bytes(), 0
    for place in range(0, len(content), len(content) // 150):
        (tmp_path / "bad.pth").write_bytes(content[:place] + bytes([content[place] ^ 0x5A]) + content[place + 1 :])
        try:
            weights.read_checkpoint(tmp_path / "bad.pth")
        except ValueError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "is a Git LFS pointer"),
        (b"\n <!DOCTYPE html><html></html>", "is a web page"),
        (b'{"error": "not found"}', "is JSON"),
        (b"", "is empty"),
        (b"hello", "begins with b'hello'"),
    ],
)
def test_what_lies_where_weights_should_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    for name, read in (("a.pth", weights.read_checkpoint), ("a.safetensors", weights.load_tensors)):
        (tmp_path / name).write_bytes(content)
        if content != b"hello" or name == "a.pth":
            with pytest.raises((ValueError, OSError), match=rf"a\..*{message}"):
                read(tmp_path / name)
    weights.save_tensors({"a": torch.zeros(3)}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match="is a safetensors file already"):
        weights.read_checkpoint(tmp_path / "b.pth")
