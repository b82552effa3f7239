"""The package as another project sees it."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

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


def imports() -> dict[str, set[str]]:
    """Of each package and module of plasm, the others that it imports, anywhere in it."""
    root = Path(plasm.__file__).parent
    found: dict[str, set[str]] = {}
    for file in root.rglob("*.py"):
        package = ["plasm", *file.relative_to(root).with_suffix("").parts[:-1]]
        unit = file.relative_to(root).with_suffix("").parts[0]
        others = found.setdefault(unit, set())
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                start = [*package[: len(package) - node.level + 1]] if node.level else []
                names = [".".join([*start, *filter(None, [node.module]), alias.name]) for alias in node.names]
            else:
                continue
            others |= {name.split(".")[1] for name in names if name.startswith("plasm.")} - {unit}
    return found


def test_arrows_point_down() -> None:
    found = imports()
    assert {"layers", "weights", "models", "training", "cli", "prediction"} <= set(found)
    TopologicalSorter(found).prepare()  # raises where they lead in a circle
    assert found["layers"] == found["files"] == set()
    assert found["weights"] == {"files"}
    assert found["tasks"] == {"layers"}
    assert found["models"] == {"layers", "tasks", "weights"}
    assert {unit for unit, others in found.items() if "training" in others} == {"cli"}
    assert {unit for unit, others in found.items() if "cli" in others} == {"__main__"}


def test_version() -> None:
    from importlib.metadata import version

    assert plasm.__version__ == version("plasm-video")
