"""From a run to a folder for others: weights, configuration and a model card."""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from plasm import weights
from plasm.files import atomic_write, is_count, is_number, read_json
from plasm.models import load_model
from plasm.weights.files import WEIGHTS_NAME

from .history import read_history


def record_metrics(
    run: Path, sha256: str, metrics: Mapping[str, Mapping[str, float]], num_clips: int, data: str, options: str
) -> Path:
    """Write what was measured beside the weights it was measured on: ``metrics.json``.

    Args:
        run: Folder of the weights.
        sha256: Of the weights, when they were loaded.
        metrics: Of each forecast, the means by name.
        num_clips: That they are means over.
        data: Name of the data set.
        options: Of the command that prints the metrics again, but for the weights.

    Returns:
        The file.

    Raises:
        OSError: If the weights are others by now, or the folder cannot be written.
        ValueError: If a metric is not finite.
    """
    if weights.file_sha256(run / WEIGHTS_NAME) != sha256:
        raise OSError(f"the weights in {run} changed while they were measured: {run / 'metrics.json'} is not written")
    for name, means in metrics.items():
        if wrong := [key for key, value in means.items() if not math.isfinite(value)]:
            raise ValueError(f"{', '.join(wrong)} of {name} not finite: {run / 'metrics.json'} is not written")
    measured = {
        "sha256": sha256,
        "data": data,
        "num_clips": num_clips,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "options": options,
        "metrics": metrics,
    }
    file = run / "metrics.json"
    with atomic_write(file) as beside:
        beside.write_text(json.dumps(measured, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return file


def export_run(run: Path, folder: Path, repo: str, license: str) -> None:
    """Make the folder that is pushed: the run's very weights, config.json, and a model card.

    Args:
        run: Folder of a run of phase 2.
        folder: Made if it is not there.
        repo: "owner/name" that it will have on the Hub.
        license: Of the weights.

    Raises:
        FileNotFoundError: If ``run`` is not a run.
        ValueError: If it is of phase 1, or damaged.
    """
    runs = read_history(run)
    # A run, whatever published weights are called.
    model = load_model(None, os.path.join(os.curdir, run))
    folder.mkdir(parents=True, exist_ok=True)
    # A copy, so that the card's metrics are of these bytes.
    shutil.copyfile(run / WEIGHTS_NAME, folder / WEIGHTS_NAME)
    card = weights.Card(
        repo=repo,
        license=license,
        data=runs[-1]["data"],
        runs=runs,
        measured=_measured(run),
        picture=max((run / "samples").glob("*.png"), default=None),
    )
    weights.describe_folder(model, folder, card=card)


def push_run(run: Path, repo: str, license: str = "apache-2.0", private: bool = False) -> tuple[str, str]:
    """Put the weights of a run of phase 2 on the Hub, with a model card made from the run.

    Args:
        run: Its folder.
        repo: "owner/name"; made if need be.
        license: Of the weights, as the Hub writes it.
        private: Who sees a repository that is made.

    Returns:
        Address and revision.

    Raises:
        ValueError: If ``repo`` is no such name, and as for ``export_run``.
        ConnectionError: If the Hub does not answer.
    """
    if "/" not in repo:
        raise ValueError(f"--repo is OWNER/NAME, got {repo!r}")
    with tempfile.TemporaryDirectory() as folder:
        export_run(run, Path(folder), repo, license)
        return weights.push(Path(folder), repo, private)


def _measured(run: Path) -> dict[str, Any] | None:
    """What was measured, if it was measured on the weights that are there now."""
    file = run / "metrics.json"
    measured: Any = read_json(file) if file.is_file() else {}
    damaged = f"{file} is damaged: remove it, and run `plasm evaluate --weights {run}` again"
    if not isinstance(measured, dict):
        raise ValueError(damaged)
    if measured.get("sha256") != weights.file_sha256(run / WEIGHTS_NAME):
        return None
    metrics = measured.get("metrics")
    if (
        not all(isinstance(measured.get(key), str) for key in ("data", "date", "options"))
        or not is_count(measured.get("num_clips"))
        or not isinstance(metrics, dict)
        or "model" not in metrics
        or not all(isinstance(means, dict) and all(map(is_number, means.values())) for means in metrics.values())
    ):
        raise ValueError(damaged)
    return measured
