"""The family of docs/own.md and its tests, as the page gives them: they run here, with those of this file."""

import importlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor, nn

from plasm.testing import PROMISES, ModelTester

PAGE = (Path(__file__).parents[2] / "docs" / "own.md").read_text(encoding="utf-8")
FAMILY = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[-1]
(TESTS,) = re.findall(r'^```python title="test_frame_mixer.py"\n(.*?)^```', PAGE, re.MULTILINE | re.DOTALL)

with tempfile.TemporaryDirectory() as _folder, pytest.MonkeyPatch.context() as _patch:
    (Path(_folder) / "frame_mixer.py").write_text(FAMILY, encoding="utf-8")
    (Path(_folder) / "test_frame_mixer.py").write_text(TESTS, encoding="utf-8")
    _patch.syspath_prepend(_folder)
    TestFrameMixer = importlib.import_module("test_frame_mixer").TestFrameMixer


def test_the_family_of_the_page_lacks_some_promises() -> None:
    assert TestFrameMixer().not_promised("frame_mixer_mmnist").keys() == {
        "features", "grad_checkpointing", "layers", "out_chans",
    }  # fmt: skip


def test_a_promise_that_there_is_not_is_a_mistake() -> None:
    class Tester(ModelTester):
        def not_promised(self, name: str) -> dict[str, str]:
            return {"flight": "no wings"}

    with pytest.raises(AssertionError):
        Tester().require("frame_mixer_mmnist", next(iter(PROMISES)))


def test_no_models_and_names_that_are_none_of_them_are_mistakes() -> None:
    """Tests of them would be skipped, which looks like success."""
    metafunc: Any = SimpleNamespace(fixturenames=[])
    for given, message in (
        ({"models": ()}, "has no models to test"),
        ({"models": ("frame_mixer_mmnist",), "graph_models": ("frame_mixr_mmnist",)}, r"graph_models .*frame_mixr"),
    ):
        with pytest.raises(ValueError, match=message):
            type("Tester", (ModelTester,), given)().pytest_generate_tests(metafunc)


@pytest.mark.parametrize("shift", [1, -1])
def test_a_clip_that_sees_its_neighbour_is_found(shift: int) -> None:
    """The one before it or the one after, and in forecasts near zero, too."""

    class Seeing(nn.Module):
        in_frames, in_chans = 2, 1

        def forward(self, clip: Tensor) -> Tensor:
            neighbour = clip.roll(shift, 0)
            neighbour[0 if shift > 0 else -1] = 0
            return 1e-4 * (clip + neighbour)

    class Tester(ModelTester):
        models = ("seeing",)

    with pytest.raises(AssertionError):
        Tester().test_clips_do_not_see_each_other(Seeing())


def test_a_family_in_the_folder_needs_no_line_anywhere_and_no_pytest(tmp_path: Path) -> None:
    (tmp_path / "mixer.py").write_text(FAMILY, encoding="utf-8")
    code = """
import sys
sys.modules["pytest"] = None
import plasm, plasm.training
plasm.models.__path__.append(sys.argv[1])
spec = plasm.models.__spec__
exec(spec.loader.get_code(spec.name), vars(plasm.models))  # as at the first import
assert "frame_mixer_mmnist" in plasm.list_models()
print(plasm.models.FrameMixer.__module__, plasm.models.recipe("frame_mixer_mmnist", "train"))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.strip() == "plasm.models.mixer {'epochs': 20, 'lr': 0.001}", done.stderr
