import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, dataloader

from plasm.data import clip_batches
from plasm.data.batches import _Batches
from plasm.devices import clear_failures
from plasm.files import import_named, user_modules


class Items(Dataset[Tensor]):
    """A clip's only value is its index."""

    def __getitem__(self, index: int) -> Tensor:
        return torch.full((2, 1, 1, 1), float(index))


class Listed(Items):
    """As torch fetches several."""

    def __getitem__(self, index: int) -> Tensor:
        raise NotImplementedError

    def __getitems__(self, indices: list[int]) -> list[Tensor]:
        return [Items()[index] for index in indices]


class Whole(Listed):
    def __getitems__(self, indices: list[int]) -> list[Tensor]:
        raise NotImplementedError

    def get_batch(self, indices: list[int]) -> Tensor:
        return torch.stack([Items()[index] for index in indices])


@pytest.mark.parametrize(("kind", "workers"), [(Items, 0), (Items, 1), (Listed, 0), (Whole, 0)])
def test_batches_are_of_their_indices_in_order(kind: Any, workers: int) -> None:
    batches = list(clip_batches(kind(), [[3, 1], [2]], workers))
    assert [batch[:, 1, 0, 0, 0].tolist() for batch in batches] == [[3, 1], [2]]


class Damaged(Items):
    """Clips of which one cannot be read, or takes its process with it."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def __getitem__(self, index: int) -> Tensor:
        if index == 2 and self.error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 2 and self.error is not None:
            raise self.error
        return super().__getitem__(index)


@pytest.mark.parametrize(
    "error",
    [ValueError("a.npy is damaged"), FileNotFoundError("b.npy is not there"), OSError(5, "c.npy cannot be read")],
)
def test_an_error_of_a_worker_is_that_of_this_process(error: Exception) -> None:
    for workers in (0, 1):
        with pytest.raises(type(error)) as raised:
            list(clip_batches(Damaged(error), [[1], [2]], workers))
        assert str(raised.value) == str(error)


def test_a_worker_that_is_killed_is_a_clear_error() -> None:
    match = r"loads clips was killed \(.*pid.*--workers may help: start anew"
    with pytest.raises(ChildProcessError, match=match) as kept, clear_failures("start anew"):
        list(clip_batches(Damaged(None), [[1], [2], [1], [1]], 2))
    assert kept.value.__cause__ is not None
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), EOFError(), FileNotFoundError(2, "gone")])
def test_a_worker_that_is_killed_while_a_batch_comes_from_it_is_too(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataloader._MultiProcessingDataLoaderIter, "_try_get_data", Mock(side_effect=error))
    match = r"loads clips was killed \(the way to .* broke: .*--workers may help: start anew"
    with pytest.raises(ChildProcessError, match=match), clear_failures("start anew"):
        list(clip_batches(Items(), [[1]], 1))


@pytest.mark.parametrize("error", [EOFError("a.bin ends"), RuntimeError("a fault of its own")])
def test_another_error_of_a_data_set_is_its_own_and_keeps_no_worker(error: Exception) -> None:
    """As long as it is kept: a worker that lives keeps the process from ending."""
    with pytest.raises(type(error), match=str(error)) as kept:
        list(clip_batches(Damaged(error), [[1], [2], [1]], 2))
    assert kept.value.__traceback__ is not None
    assert not multiprocessing.active_children()


def test_nor_does_a_loader_that_is_left_alone() -> None:
    batches = clip_batches(Items(), [[1], [2], [3]], 1)
    assert next(batches) is not None
    batches.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


def test_a_data_set_of_a_users_module_goes_to_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As workers get it that do not begin with a fork; its folder is not on their path."""
    (tmp_path / "users_clips.py").write_text(
        "import torch, users_helper\nclass Clips:\n"
        "    def __getitem__(self, i): return torch.full((1,), users_helper.ONE)\n"
    )
    (tmp_path / "users_helper.py").write_text("ONE = 1.0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.setattr(user_modules, "_named", {})
    for name in ("users_clips", "users_helper"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    pickled = pickle.dumps(_Batches(import_named("users_clips").Clips(), [[3]]))
    read = (
        "import pickle, sys; sys.path[:] = [p for p in sys.path if p]\n"
        "assert pickle.load(sys.stdin.buffer)[0].tolist() == [[1.0]]; assert 'users_clips' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", read], cwd=tmp_path, input=pickled, check=True)
