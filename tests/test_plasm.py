"""The package as another project sees it."""

import ast
import importlib
import os
import pickle
import re
import shutil
import subprocess
import sys
from graphlib import CycleError
from pathlib import Path
from types import ModuleType

import pytest
import timm
from safetensors import _safetensors_rust

import plasm


def in_new_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_registers_every_model_and_runs_no_command() -> None:
    out = in_new_process(
        "import timm, plasm, sys;"
        "print(len(timm.list_models('plasm*')), type(timm.create_model('plasm_taxibj')).__name__);"
        "heavy = ('matplotlib', 'skimage', 'plasm.data', 'plasm.training', 'plasm.prediction', 'plasm.cli');"
        "print([m for m in heavy if m in sys.modules])"
    )
    assert out.splitlines() == ["7 PLASM", "[]"]  # of the family whose names begin so


ROOT = Path(plasm.__file__).parent


@pytest.fixture(scope="module")
def house() -> ModuleType:
    """The program that draws what imports what."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT.parent / "docs"))
        return importlib.import_module("house")


def test_arrows_point_down(house: ModuleType) -> None:
    found = house.imports()
    assert {"layers", "weights", "models", "training", "cli", "prediction"} <= set(found)
    heights = house.levels(found)  # raises where they lead in a circle
    assert all(heights[other] < heights[unit] for unit, others in found.items() for other in others)
    with pytest.raises(CycleError):
        house.levels({**found, "files": {"cli"}})
    assert found["layers"] == found["files"] == set()
    assert found["weights"] == {"files"}
    assert found["cpu"] == {"layers"}
    assert found["tasks"] == {"layers"}
    assert found["models"] == {"files", "layers", "tasks", "weights"}
    assert {unit for unit, others in found.items() if "training" in others} == {"cli"}
    assert {unit for unit, others in found.items() if "cli" in others} == {"__main__"}
    assert not any("__init__" in others or "testing" in others for others in found.values())


def test_at_most_six_modules_stand_beside_the_packages() -> None:
    modules = {file.stem for file in ROOT.glob("*.py")} - {"__init__", "__main__"}
    assert len(modules) <= 6, modules


def test_the_drawing_of_the_house_is_current_and_no_arrow_leads_up(house: ModuleType) -> None:
    assert not house.stale(), "python docs/house.py draws it again"
    paths = re.findall(r'<path d="M([^"]+)" fill="none"', house.FILE.read_text(encoding="utf-8"))
    assert len(paths) > 20
    for path in paths:
        heights = [float(point.split()[1]) for point in path.split(" L")]
        assert heights == sorted(heights)  # downwards y grows


def test_no_module_is_looked_up_that_was_not_imported() -> None:
    """That would be an arrow that nobody sees. These ask for modules of other libraries."""
    looking = {file.relative_to(ROOT).as_posix() for file in ROOT.rglob("*.py") if "sys.modules" in file.read_text()}
    assert looking == {"__init__.py", "files/settings.py", "layers/sparse_sites.py"}


def test_a_file_of_models_is_a_family_or_says_that_it_is_none() -> None:
    families = {file.stem for file in (ROOT / "models").glob("*.py") if not file.name.startswith("_")}
    assert families == {family.module.rpartition(".")[2] for family in plasm.models.families()}
    for family in plasm.models.families():
        module = importlib.import_module(family.module)
        for name, constructor in family.constructors.items():
            assert vars(module)[name] is constructor
            assert timm.models.model_entrypoint(name) is constructor
            assert pickle.loads(pickle.dumps(constructor)) is constructor
            assert name in module.__all__
            assert re.search(rf"\b{name}\b(?!\")", Path(module.__file__).read_text())  # a search finds it


def test_layers_need_torch_einops_and_timm_alone() -> None:
    found = set()
    for file in (ROOT / "layers").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            found |= {name.partition(".")[0] for name in names}
    assert found - sys.stdlib_module_names == {"torch", "einops", "timm"}


def test_version() -> None:
    from importlib.metadata import version

    assert plasm.__version__ == version("plasm-video")


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux' loader")
def test_no_native_library_of_the_current_folder_is_loaded(tmp_path: Path) -> None:
    """NVIDIA's own look there for the driver's library, which a machine without a GPU has not."""
    shutil.copyfile(_safetensors_rust.__file__, tmp_path / "libcuda.so.1")
    program = "import os, sys; sys.path[:] = [p for p in sys.path if p]; import plasm; print(os.getcwd())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, "LD_DEBUG": "files"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    begun = re.findall(r"calling init: (\S+)", done.stderr)
    assert [file for file in begun if not file.startswith("/") or file.startswith(str(tmp_path))] == []
    assert done.stdout.strip() == str(tmp_path.resolve())
