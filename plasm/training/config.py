"""The configuration of a training run: one typed record, which is also the command line's list of options and a file.

The file is TOML: a key for each field, tables for ``data_args`` and ``model_args``, and ``command``, "pretrain" or
"train". What is not in it has the record's default.
"""

import sys
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import tomli_w

from plasm.models import recipe
from plasm.weights import write_beside

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "Config",
    "EvaluateConfig",
    "PretrainConfig",
    "RunConfig",
    "TrainConfig",
    "config_differences",
    "make_config",
    "model_defaults",
    "option",
    "read_config",
    "save_config",
]


def option(default: Any, help: str, at_least: float | None = None) -> Any:
    """A field of a configuration: its default, what it is, and the least value (of each entry) that makes sense."""
    return field(default=default, metadata={"help": help, "at_least": at_least})


def _required(help: str) -> Any:
    return field(metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class Config:
    """A record of options that checks its values' types and ranges."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: If one is of the wrong type or too small.
        """
        for f in fields(self):
            value, least = getattr(self, f.name), f.metadata.get("at_least")
            _check_type(f.name, f.type, value)
            if least is not None and value is not None:
                for entry in value if isinstance(value, tuple) else (value,):
                    if entry < least:
                        raise ValueError(f"{f.name} is at least {least}, got {entry}")


@dataclass(frozen=True, kw_only=True)
class RunConfig(Config):
    """What both phases are told."""

    model: str = _required("Constructor of the model: of `plasm list`, any other of timm's, or MODULE:NAME.")
    data: str = _required(
        "Data set: mmnist, mmnist_public, taxibj, kth, human36m, kitticaltech, clips, or MODULE:NAME for your own."
    )
    data_dir: str = _required("Folder of the data set's files.")
    out: str = _required("Folder of the run, made if it is not there.")
    epochs: int = option(50, "Passes over the data set.", at_least=1)
    clips_per_epoch: int = option(10_000, "Clips of a pass.", at_least=1)
    batch_size: int = option(16, "Clips of a step, over all processes.", at_least=1)
    accumulate: int = option(1, "Parts that a process cuts its share of a batch into, one after the other.", at_least=1)
    lr: float = option(0.01, "Peak learning rate.")
    schedule: Literal["onecycle", "cosine", "constant", "wsd"] = option(
        "onecycle",
        "Learning rate over the run: onecycle, cosine, constant, or wsd: warm-up, constant, decay. Until it decays, a "
        "run of wsd can be resumed with more --epochs.",
    )
    warmup_steps: int = option(0, "Steps over which wsd raises the rate to its peak.", at_least=0)
    decay_epochs: int = option(0, "Epochs at the end over which wsd lowers the rate to 0; 0 for none.", at_least=0)
    optimizer: str = option("adam", "Of timm.optim, by its name: adam, adamw, muon, ...")
    weight_decay: float = option(0.0, "Of weights with more than one dimension.", at_least=0)
    clip_grad: float = option(
        1.0, "Largest norm of the gradient (the paper names none); 0 for no clipping.", at_least=0
    )
    ema: float = option(
        0.0, "Decay of an average of the weights, which is then what is measured and saved; 0 for none."
    )
    seed: int = option(0, "Of the initialisation, the clips and the masks.")
    device: str = option("auto", "cpu, cuda, ..., or auto: a GPU if there is one.")
    bf16: bool | None = option(
        None, "Compute in bfloat16 under autocast. By default where the device has instructions for it."
    )
    compile: bool = option(False, "torch.compile the model.")
    eval_every: int = option(1, "Epochs between looks at the validation clips.", at_least=1)
    val_clips: int = option(500, "Validation clips, held out of the training files.", at_least=1)
    checkpoint_minutes: float = option(
        10.0, "Time between checkpoints; there is one after each epoch, too.", at_least=0
    )
    workers: int = option(0, "Processes that load clips, for each that trains; 0 loads them in that one.", at_least=0)
    data_args: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "Option of the data set, NAME=VALUE, such as on_error=skip. May be repeated."},
    )
    model_args: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "Argument of the model's constructor, NAME=VALUE, such as attention=none. May be repeated."},
    )

    def __post_init__(self) -> None:
        """Check what can be checked without the model and the data.

        Raises:
            ValueError: If a value is out of range or of the wrong type.
        """
        super().__post_init__()
        if self.batch_size > self.clips_per_epoch:
            raise ValueError(
                f"an epoch holds a batch at least: clips_per_epoch {self.clips_per_epoch} is less than batch_size "
                f"{self.batch_size}"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate {self.accumulate} does not divide batch_size {self.batch_size}")
        for name in ("data_args", "model_args"):
            try:
                tomli_w.dumps(getattr(self, name))
            except TypeError as error:
                raise ValueError(f"{name} holds what a configuration file cannot: {error}") from error
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is a decay from 0 to below 1, got {self.ema}")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig):
    """Phase 1 (Section III-F): rebuild masked clips."""

    mask_ratio: float = option(0.96, "Share r0 of the pixels to hide (Table VIII); 0 hides none.")
    mask_ratio_end: float | None = option(
        None,
        "Share to hide in the last epoch; from r0 to it in equal steps. By default r0 throughout, as in the paper.",
    )
    spatial_masking: bool = option(True, "Put Spatial Masking between encoder and decoder (Table VI).")
    attn_mask_ratio: float = option(0.1, "Share r of Spatial Masking's attention scores to hide (Table IX).")
    mask_patch: int = option(1, "Side in pixels of what is hidden at a time.")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """Phase 2 (Section III-G): predict future frames."""

    init: str | None = option(
        None,
        "Run of phase 1 to take encoder and decoder from, or weights to go on from: as --weights of `plasm evaluate`.",
    )
    rollout: int = option(
        1,
        "Forecasts in a row that a step trains: 2 feeds the first one back for as many frames more, and all of them "
        "count. For forecasts far beyond T' frames; a run of wsd may begin it with its decay.",
        at_least=1,
    )
    freeze_encoder: bool | None = option(None, "Keep the encoder as it is. By default after phase 1 only.")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Config):
    """What to measure, and on what."""

    model: str | None = option(None, "Constructor; taken from the weights' config if that is there.")
    weights: str | None = option(
        None,
        "Run, folder, hf-hub:OWNER/NAME, published name, .safetensors or exported file (.onnx, .pt2); the model's "
        "published ones if not given.",
    )
    data: str = option("mmnist", "Data set: a name as for training, or MODULE:NAME for your own.")
    data_dir: str = _required("Folder of the data set's files.")
    num_clips: int = option(10_000, "Use the first so many clips of the test set.", at_least=1)
    frames: int | None = option(
        None,
        "Frames to predict of each clip; the model's T' by default. For more it feeds its forecasts back.",
        at_least=1,
    )
    batch_size: int = option(10, "Clips at a time.", at_least=1)
    workers: int = option(0, "Processes that load clips, for each that measures; 0 loads them in that one.", at_least=0)
    device: str = option("auto", "cpu, cuda, ..., or auto: a GPU if there is one.")
    per_frame: bool = option(False, "Print every metric for each predicted frame, too.")
    data_args: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "Option of the data set, NAME=VALUE, such as on_error=skip. May be repeated."},
    )


AnyConfig = TypeVar("AnyConfig", bound=Config)

_COMMANDS: dict[type[RunConfig], str] = {PretrainConfig: "pretrain", TrainConfig: "train"}


def model_defaults(kind: type[RunConfig], model: str) -> dict[str, Any]:
    """What a model's family sets for it in a phase, where the record's default is another."""
    return dict(recipe(model, _COMMANDS[kind]))


def _check_type(name: str, kind: Any, value: Any) -> None:
    allowed = tuple(str if get_origin(k) is Literal else get_origin(k) or k for k in (get_args(kind) or (kind,)))
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{name} is one of {', '.join(get_args(kind))}, got {value!r}")
        return
    if get_origin(kind) is dict:
        allowed = (dict,)
    if float in allowed:
        allowed += (int,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise ValueError(f"{name} is {getattr(kind, '__name__', kind)}, got {value!r}")


def save_config(config: RunConfig, file: Path) -> None:
    """Write a configuration, so that ``plasm train --config FILE`` (or ``pretrain``) repeats it."""
    with write_beside(file) as beside:
        beside.write_text(tomli_w.dumps({"command": _COMMANDS[type(config)], **_values(config)}), encoding="utf-8")


def _values(config: RunConfig) -> dict[str, Any]:
    """TOML knows no None; every field that may be None has it as its default."""
    return {name: value for name, value in asdict(config).items() if value is not None}


def read_config(kind: type[RunConfig], file: Path) -> dict[str, Any]:
    """Read the fields that a configuration file gives.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no TOML, of the other phase, or holds what is not a field.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no configuration file {file}")
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not TOML: {error}") from error
    if (command := values.pop("command", _COMMANDS[kind])) != _COMMANDS[kind]:
        raise ValueError(f"{file} is for `plasm {command}`, this is `plasm {_COMMANDS[kind]}`")
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{file} has unknown options: {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    return values


def make_config(kind: type[AnyConfig], given: dict[str, Any], file: Path | None = None) -> AnyConfig:
    """Resolve a configuration: what is given, over the file, over the model's defaults, over the record's.

    Of ``data_args`` and ``model_args`` single entries are given.

    Raises:
        ValueError: If a field without a default is missing, or a value is wrong.
        FileNotFoundError: If there is no such file.
    """
    values = read_config(kind, file) if file else {}  # type: ignore[arg-type]
    for name, value in given.items():
        values[name] = {**values.get(name, {}), **value} if isinstance(value, dict) else value
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    if missing := [f"--{name.replace('_', '-')}" for name in needed if name not in values]:
        raise ValueError(f"missing: {', '.join(missing)}; give it here or in the file of --config")
    defaults = model_defaults(kind, values["model"]) if issubclass(kind, RunConfig) else {}
    return kind(**{**defaults, **values})


# What changes no result, or none but by rounding.
_MAY_CHANGE = ("out", "data_dir", "device", "workers", "bf16", "compile", "accumulate", "checkpoint_minutes")
# The trainer looks whether the rate had been lowered.
_MAY_CHANGE_BEFORE_DECAY = ("epochs", "decay_epochs")


def config_differences(config: RunConfig, file: Path) -> list[str]:
    """Where a configuration would give another run than the one that was saved in a file, a sentence each.

    Raises:
        ValueError: If the file is damaged, or of the other phase.
    """
    # What an earlier plasm did not know has its default.
    known = {f.name: f.default for f in fields(config) if f.default is not MISSING and f.default is not None}
    saved = {**known, **read_config(type(config), file)}
    may_change = _MAY_CHANGE + (_MAY_CHANGE_BEFORE_DECAY if config.schedule == "wsd" else ())
    if config.schedule == "wsd" and not saved.get("decay_epochs"):
        # The last part of a run, with its decay, may train longer forecasts than what came before.
        may_change += ("rollout",)
    own = tomllib.loads(tomli_w.dumps(_values(config)))
    names = [name for name in sorted(set(saved) | set(own)) if name not in may_change]
    return [
        f"{name} is {own.get(name)!r}, was {saved.get(name)!r}" for name in names if own.get(name) != saved.get(name)
    ]
