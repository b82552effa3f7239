"""The manifest of published weights: one row a file, read from ``manifest.json`` and written nowhere else."""

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


class WeightsNotFoundError(LookupError):
    """No such weights are published."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One published weight.

    Attributes:
        model: Name of the constructor.
        tag: Distinguishes the weights of a model.
        file: Name of the safetensors file: beside the manifest, or in ``repo``.
        repo: Repository on the Hub; None for a file inside the package.
        revision: Commit of ``repo``, 40 hexadecimal digits.
        size: Bytes of the file.
        sha256: Of the file.
        license: SPDX identifier.
        data: What it was trained on.
        epochs: Of the second phase.
        clips: Clips seen in the second phase.
        pretraining: What the first phase was, or None.
        metrics: Measured on the test set, with this very file.
        command: What reproduces the metrics.
        date: Of the training, ISO 8601.
        model_args: Arguments of the constructor in which the weights differ from its defaults of today.
        note: What else one must know of them: where they depart from the paper.
    """

    model: str
    tag: str
    file: str
    repo: str | None
    revision: str | None
    size: int
    sha256: str
    license: str
    data: str
    epochs: int
    clips: int
    pretraining: str | None
    metrics: dict[str, float]
    command: str
    date: str
    model_args: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def name(self) -> str:
        """Its name for ``timm.create_model``."""
        return f"{self.model}.{self.tag}"

    @property
    def local_name(self) -> str:
        """Name of the file in a folder of ``add_source``, where files of many repositories lie side by side."""
        return f"{self.name}.safetensors"


@cache
def entries() -> tuple[Entry, ...]:
    """Every row of the manifest; the first of a model is its default."""
    return tuple(Entry(**row) for row in json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8")))


def tags(model: str) -> list[str]:
    """Tags of the weights of a model, the default first."""
    return [entry.tag for entry in entries() if entry.model == model]


def entry(model: str, tag: str | None = None) -> Entry:
    """The row of a weight, the model's default one if no tag is given.

    Raises:
        WeightsNotFoundError: If no such weight is published.
    """
    for row in entries():
        if row.model == model and tag in (None, "", row.tag):
            return row
    wanted = f"{model}.{tag}" if tag else model
    published = [row.name for row in entries()]
    known = [*published, *dict.fromkeys(row.model for row in entries())]
    # A tag is half of a name: others of the same tag are no names that were meant.
    near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.85)
    meant = f"do you mean {near[0]}? There" if near else "there"
    raise WeightsNotFoundError(
        f"no weights are published for {wanted}; {meant} are: {', '.join(published) or 'none yet'}"
    )


def describe(row: Entry) -> dict[str, str]:
    """A row of the manifest in words, by title: what ``plasm list --weights`` and the docs' table show."""
    scores: dict[str, Any] = row.metrics
    return {
        "model and tag": row.name,
        **({"arguments": json.dumps(row.model_args)} if row.model_args else {}),
        "where": f"{row.repo}@{row.revision}" if row.repo else "in the package",
        "file": row.file,
        "size": f"{row.size / 1e6:.1f} MB",
        "sha256": row.sha256,
        "license": row.license,
        "data": row.data,
        "epochs": f"{row.epochs:,}",
        "clips seen": f"{row.clips:,}",
        "phase 1": row.pretraining or "none",
        "MSE": f"{scores['mse']:.2f}",
        "MAE": f"{scores['mae']:.2f}",
        "SSIM": f"{scores['ssim']:.4f}",
        "SSIM (published)": f"{scores['ssim_published']:.4f}",
        "PSNR (dB)": f"{scores['psnr']:.2f}",
        "command": row.command,
        "date": row.date,
        **({"note": row.note} if row.note else {}),
    }


_CODE = ("model and tag", "arguments", "file", "sha256", "command")


def markdown_table(rows: Iterable[Entry]) -> str:
    """Rows of the manifest as a table of Markdown: a column a weight."""
    described = [describe(row) for row in rows]
    titles = list(dict.fromkeys(title for row in sorted(described, key=len, reverse=True) for title in row))
    lines = []
    for title in titles:
        cells = (f"`{row[title]}`" if title in _CODE and title in row else row.get(title, "-") for row in described)
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join([*lines[:1], "|---" * (1 + len(described)) + "|", *lines[1:]])
