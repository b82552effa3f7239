"""The notebooks: Python files whose cells begin with ``# %%``, and the Jupyter notebooks made from them.

A cell ``# include: FILE`` holds the code of a file of the repository.

Usage: python docs/notebooks.py [--write] [--whole] [NAME ...]

runs them (all by default), each in a kernel of its own and an empty folder, as a reader would. They use what ships
with plasm, nothing else. Trainings are short, unless ``--whole`` is given. With ``--write`` what they print and draw is
kept for the site, in ``docs/notebooks/outputs``.
"""

import argparse
import base64
import io
import json
import os
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from PIL import Image

FOLDER = Path(__file__).parent / "notebooks"
OUTPUTS = FOLDER / "outputs"
ROOT = Path(__file__).parents[1]


def names() -> list[str]:
    """Every notebook, in reading order."""
    return sorted(file.stem for file in FOLDER.glob("*.py"))


def _read(name: str) -> nbformat.NotebookNode:
    notebook = jupytext.read(FOLDER / f"{name}.py")
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    # Jupyter numbers cells at random: a notebook is to be the same file each time it is made.
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index}"
        if match := re.fullmatch(r"# include: (\S+)", cell.source):
            code = (ROOT / match[1]).read_text(encoding="utf-8")
            # What a cell needs: not what the file says of itself, nor what runs it as a program.
            code = re.sub(r'^""".*?"""\n+', "", code, flags=re.DOTALL).partition("\n\nif __name__")[0]
            cell.source = re.sub(r"^import sys\n", "", code, flags=re.MULTILINE).strip()
    return notebook


def ipynb(name: str) -> str:
    """The Jupyter notebook, with the outputs that were kept of it."""
    return str(nbformat.writes(_with_outputs(name)))


def _with_outputs(name: str) -> nbformat.NotebookNode:
    notebook, file = _read(name), OUTPUTS / f"{name}.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [nbformat.from_dict(output) for output in kept.get(cell.source, [])]
    return notebook


def stale() -> list[str]:
    """Notebooks with a cell that was changed after its output was kept."""
    found = []
    for name in names():
        cells = [cell.source for cell in _read(name).cells if cell.cell_type == "code"]
        file = OUTPUTS / f"{name}.json"
        if file.is_file() and list(json.loads(file.read_text(encoding="utf-8"))) != cells:
            found.append(name)
    return found


def page(name: str) -> str:
    """The page of the site: the cells with their outputs, and the notebook to take away."""
    parts = []
    for cell in _with_outputs(name).cells:
        language = "bash" if cell.source.startswith("!") else "python"
        parts.append(f"```{language}\n{cell.source}\n```" if cell.cell_type == "code" else cell.source)
        parts += [_shown(output) for output in cell.get("outputs", [])]
    title, *rest = parts
    return "\n\n".join([title, f"[Download the notebook]({name}.ipynb){{ .md-button download }}", *rest, ""])


def _shown(output: nbformat.NotebookNode) -> str:
    """An output as Markdown."""
    if picture := output.get("data", {}).get("image/png"):
        return f"![What the cell above draws](data:image/png;base64,{picture.strip()}){{ .output }}"
    text = output.get("text") or output["data"]["text/plain"]
    return f"```{{ .text .output }}\n{text.rstrip()}\n```"


def _small(picture: str) -> str:
    """A PNG in 256 colours, which is half as large."""
    small = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB").quantize(256).save(small, "png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def _kept(outputs: list[nbformat.NotebookNode]) -> list[dict[str, Any]]:
    """What is kept of a cell's outputs: text as a terminal shows it in the end, and pictures."""
    kept: list[dict[str, Any]] = []
    for output in outputs:
        if output.output_type == "stream" and output.name == "stdout":
            # A progress bar writes over itself.
            lines = [re.split(r"\r(?!$)", line.rstrip("\r"))[-1] for line in output.text.splitlines()]
            if kept and kept[-1]["output_type"] == "stream":
                lines = [*kept.pop()["text"].splitlines(), *lines]
            text = "\n".join(line for line in lines if not re.search(r"\d+%\||^\s*$", line))
            # Nothing of the machine that it ran on.
            kept.append({"output_type": "stream", "name": "stdout", "text": text.replace(f"{ROOT}/", "")})
        elif output.output_type in ("display_data", "execute_result"):
            data = {kind: output.data[kind] for kind in ("image/png", "text/plain") if kind in output.data}
            data = {"image/png": _small(data["image/png"]), "text/plain": "picture"} if "image/png" in data else data
            row = {"output_type": "display_data", "data": data, "metadata": {}}
            kept.append(row)
    return kept


def run(name: str, write: bool = False, whole: bool = False) -> float:
    """Run a notebook in an empty folder.

    Args:
        name: Of the notebook.
        write: Keep its outputs for the site.
        whole: Let it take its time.

    Returns:
        The seconds it took.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    from nbclient import NotebookClient

    start, notebook = time.monotonic(), _read(name)
    sources = [cell.source for cell in notebook.cells]
    for cell in notebook.cells:
        # Jupyter lets a command fail in silence.
        cell.source = re.sub(r"^(!.*)$", r"\1\nassert _exit_code == 0", cell.source, flags=re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=None if whole else 120, resources={"metadata": {"path": folder}}).execute()
    if write:
        OUTPUTS.mkdir(exist_ok=True)
        cells = zip(sources, notebook.cells, strict=True)
        kept = {source: _kept(cell.outputs) for source, cell in cells if cell.cell_type == "code"}
        (OUTPUTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return time.monotonic() - start


def main() -> None:
    """Run them, two at a time, and print how long each took."""
    parser = argparse.ArgumentParser(description="Run the notebooks.")
    parser.add_argument("--write", action="store_true", help="Keep what they print and draw, for the site.")
    parser.add_argument("--whole", action="store_true", help="Train as long as a reader would.")
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if not arguments.whole:
        os.environ["PLASM_QUICK"] = "1"
    chosen = arguments.names or names()
    with ThreadPoolExecutor(2) as pool:
        runs = pool.map(lambda name: run(name, arguments.write, arguments.whole), chosen)
        for name, seconds in zip(chosen, runs, strict=True):
            print(f"{name}: {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
