"""The package as another project sees it."""

import ast
import importlib
import pickle
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import timm

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
    assert out.splitlines() == ["6 PLASM", "[]"]  # of the family whose names begin so


ROOT = Path(plasm.__file__).parent


def imports() -> dict[str, set[str]]:
    """Of each package and module of plasm, the others that it imports, anywhere in it; `__init__` is the face."""
    units = {entry.stem for entry in ROOT.iterdir()}
    found: dict[str, set[str]] = {}
    for file in ROOT.rglob("*.py"):
        package = ["plasm", *file.relative_to(ROOT).with_suffix("").parts[:-1]]
        unit = file.relative_to(ROOT).with_suffix("").parts[0]
        others = found.setdefault(unit, set())
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                start = [*package[: len(package) - node.level + 1]] if node.level else []
                names = [".".join([*start, *filter(None, [node.module]), alias.name]) for alias in node.names]
            else:
                continue
            parts = [name.split(".") for name in names]
            # `import plasm`, and `from plasm import create_model`, are of the face.
            named = {part[1] if part[1:] and part[1] in units else "__init__" for part in parts if part[0] == "plasm"}
            others |= named - {unit}
    return found


def test_arrows_point_down() -> None:
    found = imports()
    assert {"layers", "weights", "models", "training", "cli", "prediction"} <= set(found)
    TopologicalSorter(found).prepare()  # raises where they lead in a circle
    assert found["layers"] == found["files"] == set()
    assert found["weights"] == {"files"}
    assert found["tasks"] == {"layers"}
    assert found["models"] == {"files", "layers", "tasks", "weights"}
    assert {unit for unit, others in found.items() if "training" in others} == {"cli"}
    assert {unit for unit, others in found.items() if "cli" in others} == {"__main__"}
    assert not any("__init__" in others or "testing" in others for others in found.values())


def test_no_module_is_looked_up_that_was_not_imported() -> None:
    """That would be an arrow that nobody sees. (Whether torch has its compiler at hand, the sparse layers may ask.)"""
    looking = {file.relative_to(ROOT).as_posix() for file in ROOT.rglob("*.py") if "sys.modules" in file.read_text()}
    assert looking == {"layers/sparse_sites.py"}


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
            assert re.search(rf"^{name} = ", Path(module.__file__).read_text(), re.MULTILINE)  # a search finds it


def test_version() -> None:
    from importlib.metadata import version

    assert plasm.__version__ == version("plasm-video")
