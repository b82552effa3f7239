"""What several tests need."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_fixtures import clients, hub, published, running_hub, untrusted  # noqa: F401
from hypothesis import settings

from plasm.data import SAMPLES
from plasm.runs import log

FULL_DATA = Path(os.environ.get("PLASM_DATA", Path(__file__).parents[2] / "shared" / "data"))
FULL_MNIST = Path(os.environ.get("PLASM_MNIST", FULL_DATA / "mnist"))

# A busy machine is no failure.
settings.register_profile("plasm", deadline=None)
settings.load_profile("plasm")


def pytest_configure(config: pytest.Config) -> None:
    """Of several test processes each computes with one thread, and so do those they start: more would spin."""
    # The user's own record of exports is none of the tests'.
    os.environ["PLASM_CACHE"] = tempfile.mkdtemp(prefix="plasm-tests-")
    if hasattr(config, "workerinput"):
        torch.set_num_threads(1)
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_unconfigure() -> None:
    """Leave nothing."""
    shutil.rmtree(os.environ["PLASM_CACHE"], ignore_errors=True)


class NoPictures:
    """In place of ``plasm.pictures``, where a run draws its curves: half of the time of a run of few steps."""

    @staticmethod
    def curves(rows: Any, file: Path) -> None:
        file.write_bytes(b"curves")


@pytest.fixture(scope="session", autouse=True)
def _undrawn() -> Iterator[None]:
    """Runs in this process draw no curves after each epoch; ``tests/runs/test_log.py`` draws some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "pictures", NoPictures)
        yield


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def full_data() -> Path:
    """The folder PLASM_DATA names, or one beside the checkout: whole data sets in folders of their names."""
    return FULL_DATA


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """The whole of MNIST: the folder PLASM_MNIST names, or mnist among the whole data sets."""
    if not FULL_MNIST.is_dir():
        pytest.skip(
            "needs the four MNIST files in the folder that PLASM_MNIST names, or in mnist in that of PLASM_DATA"
        )
    return FULL_MNIST


@pytest.fixture(scope="session")
def sample_root() -> Path:
    """The digits that ship with the package."""
    return SAMPLES
