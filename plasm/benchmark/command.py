"""``plasm benchmark``: models are measured, and written as a table and a picture."""

import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from plasm.devices import choose_device, clear_failures, keep_freed_memory
from plasm.files import atomic_write, check_writable, listed
from plasm.models import list_models

from .measuring import Measurement, measure
from .picture import picture
from .tables import markdown, write_csv


def run(
    models: Sequence[str] = (),
    *,
    device: str = "auto",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    out: Path = Path("benchmark"),
    **options: Any,
) -> list[Measurement]:
    """Measure models side by side; see ``measure``.

    Args:
        models: Constructors, or patterns of their names; by default ``*_mmnist``: of each family and translator one.
        device: See ``choose_device``.
        dtype: See ``measure``.
        out: Folder for benchmark.csv, benchmark.md and benchmark.png; or one .csv file.
        **options: The others of ``measure``.

    Raises:
        ValueError: If plasm has no such model, or an argument is wrong.
        MemoryError: If memory ran out.
        OSError: If nothing can be written there.
    """
    found = {each: fnmatch.filter(list_models(), each) for each in models or ("*_mmnist",)}
    if unknown := [each for each, names in found.items() if not names]:
        raise ValueError(f"no model of plasm is called {listed(unknown)}: `plasm list` shows those there are")
    names = list(dict.fromkeys(name for names in found.values() for name in names))
    where = choose_device(device)
    keep_freed_memory(where)
    # Before the time is spent.
    check_writable(out if out.suffix == ".csv" else out / "benchmark.csv")
    with clear_failures("a smaller --batch-size, or fewer models, take less"):
        rows = measure(names, where, dtype=getattr(torch, dtype), **options)
    (out.parent if out.suffix == ".csv" else out).mkdir(parents=True, exist_ok=True)
    if out.suffix == ".csv":
        write_csv(rows, out)
    else:
        write_csv(rows, out / "benchmark.csv")
        with atomic_write(out / "benchmark.md") as beside:
            beside.write_text(markdown(rows), encoding="utf-8")
        picture(rows, out / "benchmark.png")
    return rows
