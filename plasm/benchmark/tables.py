"""Measurements as tables: CSV, and text to read."""

import csv
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from plasm.files import atomic_write

from .literature import measured_here, published
from .measuring import Measurement


def write_csv(rows: Iterable[Measurement], file: Path) -> None:
    """Write measurements as a table."""
    with atomic_write(file) as beside, beside.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Measurement)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def read_csv(file: Path) -> list[Measurement]:
    """Read what ``write_csv`` wrote.

    Raises:
        ValueError: If it is no such table.
    """
    kinds: dict[str, Any] = {field.name: field.type for field in fields(Measurement)}
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            if missing := kinds.keys() - (reader.fieldnames or ()):
                raise KeyError(*sorted(missing))
            lines = list(reader)
        return [Measurement(**{name: kind(line[name]) for name, kind in kinds.items()}) for line in lines]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{file} is no table of plasm benchmark ({error!r}): measure again") from error


def table(rows: Iterable[Measurement]) -> list[tuple[str, ...]]:
    """Measurements to read: a line of titles, then one a row.

    Beside each model stand the errors that others published of the same architecture, and that of the weights in the
    manifest; of these the test clips are ours.
    """
    errors = {(row.model, row.epochs): row for row in published()}
    own = measured_here()
    lines: list[tuple[str, ...]] = [
        ("model", "mode", "runtime", "threads", "from eager", "M", "G", "clips/s", "range", "frames/s", "MB",
         "of peak", "published, 200 epochs (whose)", "published, 2,000 epochs (whose)",
         "measured here (weights, clips)")
    ]  # fmt: skip
    for row in rows:
        found = [errors.get((row.model, epochs)) for epochs in (200, 2000)]
        weight = own.get(row.model)
        lines.append(
            (
                row.model,
                row.mode,
                row.runtime,
                str(row.threads),
                f"{row.difference:.1g}",
                f"{row.parameters / 1e6:.2f}",
                f"{row.macs / 1e9:.2f}",
                f"{row.clips_per_second:.2f}",
                f"{row.lowest:.2f}-{row.highest:.2f}",
                f"{row.frames_per_second:.1f}",
                f"{row.peak_memory / 2**20:.0f}",
                f"{row.peak_ratio:.0%}",
                *(f"{error.mse:.2f} ({error.whose})" if error else "-" for error in found),
                f"{weight.metrics['mse']:.2f} ({weight.tag}, {weight.clips:,})" if weight else "-",
            )
        )
    return lines


def markdown(rows: Iterable[Measurement]) -> str:
    """The same table in Markdown that is legible as it is."""
    titles, *lines = table(rows)
    widths = [max(len(line[column]) for line in [titles, *lines]) for column in range(len(titles))]
    rule = tuple("-" * width for width in widths)
    return "".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |\n"
        for line in [titles, rule, *lines]
    )
