"""What several tests need."""

import os
from pathlib import Path

import pytest
import torch
from hub_fixtures import clients, hub, published, running_hub, stranger  # noqa: F401

from plasm.data import SAMPLES

FULL_MNIST = Path(os.environ.get("PLASM_MNIST", Path(__file__).parents[2] / "shared" / "data" / "mnist"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a model tester for every model it names."""
    if "name" in metafunc.fixturenames and hasattr(metafunc.cls, "models"):
        metafunc.parametrize("name", metafunc.cls.models)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """The whole of MNIST: the folder PLASM_MNIST names, or one beside the checkout."""
    if not FULL_MNIST.is_dir():
        pytest.skip("needs the four MNIST files in the folder that PLASM_MNIST names")
    return FULL_MNIST


@pytest.fixture(scope="session")
def sample_root() -> Path:
    """The digits that ship with the package."""
    return SAMPLES
