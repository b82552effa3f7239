"""The configuration of a training run: one typed record, which is also the command line's list of options."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["PretrainConfig", "RunConfig", "TrainConfig", "model_defaults", "save_config"]


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


def _required(help: str) -> Any:
    return field(metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What both phases are told."""

    model: str = _required("Constructor of the model, as `plasm list` prints it.")
    data: str = _required(
        "Data set: mmnist, mmnist_public, taxibj, kth, human36m, kitticaltech, clips, or MODULE:NAME for your own."
    )
    data_dir: str = _required("Folder of the data set's files.")
    out: str = _required("Folder of the run, made if it is not there.")
    epochs: int = _option(50, "Passes over the data set.")
    clips_per_epoch: int = _option(10_000, "Clips of a pass.")
    batch_size: int = _option(16, "Clips of a step.")
    lr: float = _option(0.01, "Peak learning rate.")
    schedule: Literal["onecycle", "cosine", "constant"] = _option(
        "onecycle", "Learning rate over the run: onecycle, cosine or constant."
    )
    clip_grad: float = _option(1.0, "Largest norm of the gradient (the paper names none); 0 for no clipping.")
    seed: int = _option(0, "Of the initialisation, the clips and the masks.")
    device: str = _option("auto", "cpu, cuda, ..., or auto: a GPU if there is one.")
    bf16: bool = _option(True, "Compute in bfloat16 under autocast.")
    compile: bool = _option(False, "torch.compile the model.")
    eval_every: int = _option(1, "Epochs between looks at the validation clips.")
    val_clips: int = _option(500, "Validation clips, held out of the training files.")
    workers: int = _option(0, "Processes that load clips; 0 loads them in this one.")
    data_args: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "Option of the data set, NAME=VALUE, such as on_error=skip. May be repeated."},
    )
    model_args: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "Argument of the model's constructor, NAME=VALUE, such as attention=none. May be repeated."},
    )


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig):
    """Phase 1 (Section III-F): rebuild masked clips."""

    mask_ratio: float = _option(0.96, "Share r0 of the pixels to hide (Table VIII); 0 hides none.")
    spatial_masking: bool = _option(True, "Put Spatial Masking between encoder and decoder (Table VI).")
    attn_mask_ratio: float = _option(0.1, "Share r of Spatial Masking's attention scores to hide (Table IX).")
    mask_patch: int = _option(1, "Side in pixels of what is hidden at a time.")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """Phase 2 (Section III-G): predict future frames."""

    init: str | None = _option(None, "Run of phase 1 to take encoder and decoder from.")
    freeze_encoder: bool | None = _option(None, "Keep the encoder as it is. By default with --init only.")


# Table I and Section IV-B. An epoch sees the whole data set, and TaxiBJ has more clips than the record's default.
# Phase 1 is the same everywhere but for r0; its schedule and phase 2's batch size are not in
# the paper, and are the record's defaults.
_PHASE_1: dict[str, dict[str, Any]] = {
    "plasm_mmnist": {"mask_ratio": 0.96},
    "plasm_taxibj": {"mask_ratio": 0.97, "clips_per_epoch": 19_627},
    "plasm_human36m": {"mask_ratio": 0.95},
    "plasm_caltech": {"mask_ratio": 0.95},
    "plasm_kth": {"mask_ratio": 0.90},
}
_PHASE_2: dict[str, dict[str, Any]] = {
    "plasm_mmnist": {"epochs": 2000, "lr": 0.01},
    "plasm_mmnist_tiny": {"epochs": 200, "lr": 0.01},
    "plasm_taxibj": {"epochs": 50, "lr": 0.001, "schedule": "cosine", "clips_per_epoch": 19_627},
    "plasm_human36m": {"epochs": 50, "lr": 0.001},
    "plasm_caltech": {"epochs": 50, "lr": 0.001},
    "plasm_kth": {"epochs": 100, "lr": 0.001},
}


def model_defaults(kind: type[RunConfig], model: str) -> dict[str, Any]:
    """What the paper (or for the tiny model, we) set for a model in a phase, where the record's default is another."""
    table = _PHASE_1 if kind is PretrainConfig else _PHASE_2
    return table.get(model.split(".")[0], {})


def save_config(config: RunConfig, file: Path) -> None:
    """Write a configuration as JSON."""
    file.write_text(json.dumps({"phase": type(config).__name__, **asdict(config)}, indent=2) + "\n")
