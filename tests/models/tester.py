"""The tester, with the stored outputs of other people's code."""

import os
from pathlib import Path

import pytest

from plasm.testing import ModelTester

TESTS = Path(__file__).parents[1]


class BaseModelTester(ModelTester):
    """Of a family of plasm, which says itself what it does not promise."""

    # Cut ones here, and whole ones.
    reference_folders = (
        TESTS / "parity",
        Path(os.environ.get("PLASM_PARITY", TESTS.parents[1] / "shared" / "parity")),
    )

    quick_graphs: tuple[str, ...] = ()
    """Models whose graphs the quick tests trace; the others' are marked slow."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if metafunc.function.__name__ in ("test_compile", "test_export_of_any_batch_and_size"):
            slow = [
                name if name in self.quick_graphs else pytest.param(name, marks=pytest.mark.slow)
                for name in self.models
            ]
            metafunc.parametrize("name", slow)
        else:
            super().pytest_generate_tests(metafunc)

    def not_promised(self, name: str) -> dict[str, str]:
        return {}
