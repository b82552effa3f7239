"""The history of the weights of a run: its hyperparameters, and the runs before it whose weights it began with."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from plasm.config import read_config
from plasm.files import is_count, read_json
from plasm.models import is_pretraining, public_name

from .config import PretrainConfig, TrainConfig
from .log import read_rows


def read_recipe(run: Path) -> dict[str, Any]:
    """Read the configuration of a run of phase 1 or 2: every field by name, and ``command``.

    Raises:
        FileNotFoundError: If the folder holds no run.
        ValueError: If the file is damaged.
    """
    command = "pretrain" if is_pretraining(run) else "train"
    kind = PretrainConfig if command == "pretrain" else TrainConfig
    return {"command": command, **asdict(kind(**read_config(kind, run / "config.toml")))}


def read_history(run: Path) -> list[dict[str, Any]]:
    """Recipes of the runs that led to the weights of a run, the first one first, and its own.

    ``epochs`` are those that its weights have seen, of a run that may end later, and so are ``clips``, which each has
    besides; where its log is gone, they are the configuration's and None. Weights that are of no run have an entry with
    ``weights`` alone.

    Raises:
        FileNotFoundError: If the folder holds no run.
        ValueError: If a file of the run is damaged.
    """
    earlier, recipe = read_earlier(run), read_recipe(run)
    # Weights are saved when they are measured.
    measured = [row for row in read_rows(run) if "val_mse" in row]
    if recipe["command"] == "train":
        recipe["freeze_encoder"] = freezes_encoder(recipe["freeze_encoder"], earlier)
    seen = {"epochs": measured[-1]["epoch"], "clips": measured[-1]["clips"]} if measured else {"clips": None}
    return [*earlier, {**recipe, **seen}]


def read_earlier(run: Path) -> list[dict[str, Any]]:
    """The history of the weights that a run began with, which it keeps, since these may move or go on.

    Raises:
        ValueError: If the file is damaged.
    """
    file = run / "history.json"
    earlier: Any = read_json(file) if file.is_file() else []
    if not isinstance(earlier, list) or not all(map(_is_entry, earlier)):
        raise ValueError(
            f"{file} is damaged: wanted a list of runs, each with its command, data and options, or the name of weights"
        )
    return earlier


def _is_entry(entry: Any) -> bool:
    """Whether a value can be what ``read_history`` makes."""
    if not isinstance(entry, dict):
        return False
    if entry.keys() == {"weights"}:
        return isinstance(entry["weights"], str)
    return (
        entry.get("command") in ("pretrain", "train")
        and isinstance(entry.get("data"), str)
        and (entry.get("clips") is None or is_count(entry["clips"]))
        and isinstance(entry.get("data_args", {}), dict)
        and isinstance(entry.get("model_args", {}), dict)
    )


def history_of(source: str) -> list[dict[str, Any]]:
    """The history of weights that a run is to begin with, named as for ``load_initial_weights``."""
    path = Path(source)
    if (path / "config.toml").is_file():
        return read_history(path)
    return [{"weights": public_name(source)}]


def freezes_encoder(freeze_encoder: bool | None, earlier: list[dict[str, Any]]) -> bool:
    """Whether a run keeps the encoder as it is: by default if it comes right after phase 1."""
    return freeze_encoder if freeze_encoder is not None else bool(earlier) and earlier[-1].get("command") == "pretrain"
