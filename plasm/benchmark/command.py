"""``plasm benchmark``: models are measured, and written as a table and a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import timm
import torch

from plasm.devices import choose_device, clear_failures, keep_freed_memory
from plasm.models import is_plasm_model

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
        models: Constructors; by default one of Moving MNIST of each family and translator.
        device: See ``choose_device``.
        dtype: See ``measure``.
        out: Folder for benchmark.csv, benchmark.md and benchmark.png; or one .csv file.
        **options: The others of ``measure``.

    Raises:
        ValueError: If plasm has no such model, or an argument is wrong.
        MemoryError: If memory ran out.
        OSError: If nothing can be written there.
    """
    known = [name for name in timm.list_models() if is_plasm_model(name)]
    if unknown := [name for name in models if name not in known]:
        raise ValueError(f"no model of plasm is called {', '.join(unknown)}; there are: {', '.join(known)}")
    names = models or [name for name in known if name.endswith("_mmnist")]
    where = choose_device(device)
    keep_freed_memory(where)
    with clear_failures("a smaller --batch-size, or fewer models, take less"):
        rows = measure(names, where, dtype=getattr(torch, dtype), **options)
    (out.parent if out.suffix == ".csv" else out).mkdir(parents=True, exist_ok=True)
    if out.suffix == ".csv":
        write_csv(rows, out)
    else:
        write_csv(rows, out / "benchmark.csv")
        (out / "benchmark.md").write_text(markdown(rows), encoding="utf-8")
        picture(rows, out / "benchmark.png")
    return rows
