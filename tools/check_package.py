"""Build the sdist and the wheel, and check what is in them.

Usage: python tools/check_package.py [--out DIR] [--tag vX.Y.Z]
"""

import argparse
import ast
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What a wheel of plasm may hold beside its metadata, and what an sdist must hold.
WHEEL_FOLDERS = {"plasm"}
SDIST_FILES = {"setup.cfg", "pyproject.toml", "README.md", "LICENSE", "NOTICE", "CHANGELOG.md", "tests/conftest.py"}
LARGEST = 60e6
"""Bytes of a wheel: what makes it larger comes as smaller weights."""
STATED = re.compile(r"wheel (?:of|is) (\d+) MB")
METADATA = ("Name", "Version", "Summary", "License-Expression", "License-File", "Requires-Python", "Classifier",
            "Project-URL", "Description")  # fmt: skip


def build(out: Path) -> tuple[Path, Path]:
    """Build both into a folder, the wheel from the sdist, as pip would, and run ``twine check --strict``."""
    subprocess.run([sys.executable, "-m", "build", "--quiet", "--outdir", str(out), str(ROOT)], check=True)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)], check=True)
    return sdist, wheel


def version() -> str:
    """The version that ``plasm/_version.py`` states, without importing it."""
    for node in ast.parse((ROOT / "plasm" / "_version.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise ValueError("plasm/_version.py has no __version__")


def wheel_problems(wheel: Path) -> Iterator[str]:
    """What is in the wheel and should not be, or is missing from it."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        fields = message_from_bytes(archive.read(metadata))
    folders = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    yield from (f"the wheel holds {folder}" for folder in sorted(folders - WHEEL_FOLDERS))
    yield from (f"the wheel holds {name}" for name in names if "__pycache__" in name or "/tests/" in name)
    tracked = subprocess.run(["git", "ls-files", "plasm"], cwd=ROOT, capture_output=True, text=True)
    yield from (f"the wheel lacks {name}" for name in sorted(set(tracked.stdout.split()) - set(names)))
    for field in METADATA:
        if not (fields.get_payload() if field == "Description" else fields.get_all(field)):
            yield f"the metadata lacks {field}"
    size = wheel.stat().st_size
    if size > LARGEST:
        yield f"the wheel has {size / 1e6:.1f} MB, more than {LARGEST / 1e6:.0f}"
    for page in ("README.md", "docs/install.md", "CHANGELOG.md"):
        stated = STATED.findall((ROOT / page).read_text(encoding="utf-8"))
        if [abs(int(number) - size / 1e6) < 1 for number in stated] != [True]:
            yield f"{page} says {' and '.join(stated) or 'nothing'} of the wheel's MB, which are {size / 1e6:.1f}"
    if fields["Version"] != version():
        yield f"the wheel is {fields['Version']}, plasm.__version__ is {version()}"


def sdist_problems(sdist: Path) -> Iterator[str]:
    """What is missing from the sdist."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    yield from (f"the sdist lacks {name}" for name in sorted(SDIST_FILES - names))


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    parser = argparse.ArgumentParser(description="Build the sdist and the wheel, and check what is in them.")
    parser.add_argument("--out", type=Path, help="Where to leave them; nowhere by default.")
    parser.add_argument("--tag", help="A git tag, which must be the version with a v before it.")
    options = parser.parse_args()
    problems = []
    if options.tag and options.tag != f"v{version()}":
        problems.append(f"the tag is {options.tag}, the version {version()}")
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        sdist, wheel = build(out)
        problems += [*wheel_problems(wheel), *sdist_problems(sdist)]
        summary = (
            f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, {sdist.name}: {sdist.stat().st_size / 1e6:.1f} MB"
        )
    print("\n".join(problems) or summary)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
