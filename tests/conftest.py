"""What several tests need."""

from pathlib import Path

import pytest
import torch

from plasm.data import SAMPLES

FULL_MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a model tester for every model it names."""
    if metafunc.cls is not None and "name" in metafunc.fixturenames:
        metafunc.parametrize("name", metafunc.cls.models)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """The whole of MNIST, where it lies beside the checkout."""
    if not FULL_MNIST.is_dir():
        pytest.skip("needs the whole of MNIST in ../shared/data/mnist")
    return FULL_MNIST


@pytest.fixture(scope="session")
def sample_root() -> Path:
    """The digits that ship with the package."""
    return SAMPLES
