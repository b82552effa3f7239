"""Errors on Moving MNIST, 10 -> 10 frames: as others published them, and as they were measured here."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plasm import weights

PUBLISHED = Path(__file__).with_name("published.csv")
_KINDS: dict[str, Any] = {"model": str, "whose": str, "source": str, "epochs": int}


@dataclass(frozen=True)
class Published:
    """Published metrics on Moving MNIST, 10 -> 10 frames.

    Attributes:
        model: Constructor of the same architecture.
        epochs: Of training, of 10,000 clips each; None if the source does not say.
        mse: Summed over the pixels of a frame.
        mae: Summed over the pixels of a frame.
        ssim: As its source computes it.
        parameters: In millions, as reported.
        macs: In billions, as reported.
        whose: Who reports it, in a word or two.
        source: Where the numbers stand.
    """

    model: str
    epochs: int | None
    mse: float
    mae: float | None
    ssim: float | None
    parameters: float | None
    macs: float | None
    whose: str
    source: str


def published() -> list[Published]:
    """The rows of published.csv."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        rows: list[dict[str, Any]] = [
            {name: _KINDS.get(name, float)(value) if value else None for name, value in row.items()}
            for row in csv.DictReader(file)
        ]
    return [Published(**row) for row in rows]


def measured_here() -> dict[str, weights.Entry]:
    """For the name of a constructor, its default weights, where they were measured on Moving MNIST."""
    rows = [row for row in weights.entries() if row.data == "mmnist" and "mse" in row.metrics]
    return {row.model: row for row in reversed(rows)}
