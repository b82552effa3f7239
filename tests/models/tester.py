"""The tester, with the stored outputs of other people's code."""

import os
from pathlib import Path

from plasm.testing import ModelTester

TESTS = Path(__file__).parents[1]


class BaseModelTester(ModelTester):
    """Of a family of plasm, which says itself what it does not promise."""

    # Cut ones here, and whole ones.
    reference_folders = (
        TESTS / "parity",
        Path(os.environ.get("PLASM_PARITY", TESTS.parents[1] / "shared" / "parity")),
    )

    def not_promised(self, name: str) -> dict[str, str]:
        return {}
