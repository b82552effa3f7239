"""The package as another project sees it."""

import subprocess
import sys

import pytest

import plasm


def in_new_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_registers_every_model_and_runs_no_command() -> None:
    out = in_new_process(
        "import timm, plasm, sys;"
        "print(len(timm.list_models('plasm*')), type(timm.create_model('plasm_taxibj')).__name__);"
        "heavy = ('matplotlib', 'skimage', 'plasm.data', 'plasm.training', 'plasm.cli');"
        "print([m for m in heavy if m in sys.modules])"
    )
    assert out.splitlines() == ["6 PLASM", "[]"]  # of the family whose names begin so


@pytest.mark.parametrize("package", ["layers", "weights"])
def test_arrows_point_down(package: str) -> None:
    """layers and weights import nothing else of plasm's."""
    others = {"layers", "weights", "models", "data", "training", "metrics", "pictures", "cli"} - {package}
    code = (
        "import importlib, pkgutil, sys, types, pathlib, importlib.util;"
        "root = pathlib.Path(importlib.util.find_spec('plasm').origin).parent;"
        "shell = types.ModuleType('plasm'); shell.__path__ = [str(root)]; sys.modules['plasm'] = shell;"
        f"package = importlib.import_module('plasm.{package}');"
        f"[importlib.import_module(m.name) for m in pkgutil.walk_packages(package.__path__, 'plasm.{package}.')];"
        f"print([m for m in {sorted(others)} if 'plasm.' + m in sys.modules])"
    )
    assert in_new_process(code).strip() == "[]"


def test_version() -> None:
    from importlib.metadata import version

    assert plasm.__version__ == version("plasm")
