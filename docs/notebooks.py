"""The notebooks: Python files whose cells begin with ``# %%``, and the Jupyter notebooks made from them.

Usage: python docs/notebooks.py [NAME ...]

runs them (all by default), each in a kernel of its own and an empty folder, as a reader would. They use what ships
with plasm, nothing else.
"""

import os
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jupytext
import nbformat

FOLDER = Path(__file__).parent / "notebooks"


def names() -> list[str]:
    """Every notebook, in reading order."""
    return sorted(file.stem for file in FOLDER.glob("*.py"))


def _read(name: str) -> nbformat.NotebookNode:
    notebook = jupytext.read(FOLDER / f"{name}.py")
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    # Jupyter numbers cells at random: a notebook is to be the same file each time it is made.
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index}"
    return notebook


def ipynb(name: str) -> str:
    """The Jupyter notebook, without outputs."""
    return str(nbformat.writes(_read(name)))


def page(name: str) -> str:
    """The page of the site: the cells, and the notebook to take away."""
    notebook = _read(name)
    parts = [f"```python\n{cell.source}\n```" if cell.cell_type == "code" else cell.source for cell in notebook.cells]
    title, *rest = parts
    return "\n\n".join([title, f"[Download the notebook]({name}.ipynb){{ .md-button download }}", *rest, ""])


def run(name: str) -> float:
    """Run a notebook in an empty folder.

    Returns:
        The seconds it took.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    from nbclient import NotebookClient

    start, notebook = time.monotonic(), _read(name)
    for cell in notebook.cells:
        # Jupyter lets a command fail in silence.
        cell.source = re.sub(r"^(!.*)$", r"\1\nassert _exit_code == 0", cell.source, flags=re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": folder}}).execute()
    return time.monotonic() - start


def main() -> None:
    """Run them, two at a time, and print how long each took."""
    os.environ["OMP_NUM_THREADS"] = "1"
    chosen = sys.argv[1:] or names()
    with ThreadPoolExecutor(2) as pool:
        for name, seconds in zip(chosen, pool.map(run, chosen), strict=True):
            print(f"{name}: {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
