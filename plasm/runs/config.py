"""The configuration of a training run."""

import math
from dataclasses import MISSING, asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from plasm.config import Config, dictionary, option, parse_config, read_config
from plasm.data import GIVEN_BY_COMMANDS
from plasm.files import import_named
from plasm.models import recipe


@dataclass(frozen=True, kw_only=True)
class RunConfig(Config):
    """Hyperparameters and files of both phases."""

    model: str = option(MISSING, "Constructor of the model: of `plasm list`, any other of timm's, or MODULE:NAME.")
    data: str = option(
        MISSING,
        "Data set: mmnist, mmnist_public, taxibj, kth, human36m, kitticaltech, clips, radar, or MODULE:NAME for your "
        "own.",
    )
    data_dir: str = option(MISSING, "Folder of the data set's files.")
    out: str = option(MISSING, "Folder of the run, made if it is not there.")
    epochs: int = option(50, "Passes over the data set.", at_least=1)
    clips_per_epoch: int = option(10_000, "Clips of a pass.", at_least=1)
    batch_size: int = option(16, "Clips of a step, over all processes.", at_least=1)
    accumulate: int = option(1, "Parts that a process cuts its clips of a batch into, one after the other.", at_least=1)
    lr: float = option(0.01, "Peak learning rate.")
    schedule: Literal["onecycle", "cosine", "exponential", "constant", "wsd"] = option(
        "onecycle",
        "Learning rate over the run: onecycle, cosine, exponential (constant for a quarter of the run, then falling), "
        "constant, or wsd: warm-up, constant, decay. Until it decays, a run of wsd can be resumed with more --epochs.",
    )
    warmup_epochs: int = option(
        0,
        "Epochs over which onecycle and cosine raise the rate to its peak, half of the run at most; at 0, onecycle "
        "takes three tenths of it.",
        at_least=0,
    )
    warmup_steps: int = option(0, "Steps over which wsd raises the rate to its peak.", at_least=0)
    decay_epochs: int = option(
        0, "Epochs at the end over which wsd lowers the rate to 0; 0 for none. Of a shorter run half.", at_least=0
    )
    optimizer: str = option("adam", "Of timm.optim, by its name: adam, adamw, muon, ...")
    weight_decay: float = option(0.0, "Of weights with more than one dimension.", at_least=0)
    clip_grad: float = option(
        1.0, "Largest norm of the gradient (the paper names none); 0 for no clipping.", at_least=0
    )
    ema: float = option(
        0.0,
        "Decay of an average of the weights, which is then what is measured and saved; 0 for none. A run of wsd may "
        "begin a shorter one with its decay.",
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
    workers: int = option(0, "Loader processes per training process; 0 loads clips in the process itself.", at_least=0)
    data_args: dict[str, Any] = dictionary(
        "Option of the data set, NAME=VALUE, such as on_error=skip.", given=(*GIVEN_BY_COMMANDS, "num_clips", "seed")
    )
    model_args: dict[str, Any] = dictionary("Argument of the model's constructor, NAME=VALUE, such as attention=none.")
    opt_args: dict[str, Any] = dictionary("Option of the optimizer, NAME=VALUE, such as betas=(0.9,0.95).")
    layer_decay: float | None = option(
        None,
        "Factor of the learning rate from each layer to the one before it, by the model's group_matcher; all have the "
        "same by default.",
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
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr is a rate above 0, got {self.lr}")
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate {self.accumulate} does not divide batch_size {self.batch_size}")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay is a factor above 0, up to 1, got {self.layer_decay}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is a decay from 0 to below 1, got {self.ema}")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig):
    """Phase 1 (Section III-F): rebuild masked clips."""

    command = "pretrain"
    mask_ratio: float = option(0.96, "Ratio r0 of the pixels to hide (Table VIII); 0 hides none.")
    mask_ratio_end: float | None = option(
        None,
        "Ratio to hide in the last epoch; from r0 to it in equal steps. By default r0 throughout, as in the paper.",
    )
    spatial_masking: bool = option(True, "Put Spatial Masking between encoder and decoder (Table VI).")
    attn_mask_ratio: float = option(0.1, "Ratio r of Spatial Masking's attention scores to hide (Table IX).")
    mask_patch: int = option(1, "Side in pixels of what is hidden at a time.")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """Phase 2 (Section III-G): predict future frames."""

    command = "train"
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
    task_args: dict[str, Any] = dictionary("Option of the model's task, NAME=VALUE, such as sampling_stop=50000.")


AnyRunConfig = TypeVar("AnyRunConfig", bound=RunConfig)


def model_defaults(kind: type[RunConfig], model: str) -> dict[str, Any]:
    """The recipe of a model's family for a phase, where it differs from the record's defaults.

    Raises:
        ImportError: If the model is a user's MODULE:NAME, and there is no such module.
        ValueError: If it is the name of weights on the Hub or in a folder.
    """
    module, _, name = model.rpartition(":")
    if module in ("hf-hub", "local-dir"):
        raise ValueError(f"--model is a constructor; to begin with the weights of {model} give --init {name or model}")
    if module:
        # Its family registers itself there.
        import_named(module)
    return dict(recipe(name, kind.command))


def create_config(kind: type[AnyRunConfig], given: dict[str, Any], file: Path | None = None) -> AnyRunConfig:
    """Resolve a configuration: what is given, over the file, over the model's defaults, over the record's.

    Of dictionaries, such as ``model_args``, single entries are given.

    Raises:
        ValueError: If a field without a default is missing, or a value is wrong.
        FileNotFoundError: If there is no such file.
        ImportError: If there is no module of a user's MODULE:NAME.
    """
    values = read_config(kind, file) if file else {}
    values = _over(given, values)
    defaults = model_defaults(kind, values.get("model", ""))
    return kind.create(_over(values, defaults), "; give it here or in the file of --config")


def _over(values: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Values over others; of dictionaries, each entry."""
    merged = {
        name: {**others.get(name, {}), **value} if isinstance(value, dict) else value for name, value in values.items()
    }
    return {**others, **merged}


# What changes no result, or none but by rounding.
_MAY_CHANGE = ("out", "data_dir", "device", "workers", "bf16", "compile", "accumulate", "checkpoint_minutes")
# The trainer looks whether the rate had been lowered.
_MAY_CHANGE_BEFORE_DECAY = ("epochs", "decay_epochs")
CHANGE_WITH_DECAY = ("ema", "rollout")
"""What a run of wsd may be given with its decay; it holds from then on."""


def config_differences(config: RunConfig, file: Path) -> list[str]:
    """Differences of a configuration from the one saved in a file that would change the run, a sentence each.

    What an earlier plasm did not know has its default.

    Raises:
        ValueError: If the file is damaged, or of the other phase.
    """
    kind = type(config)
    # Both as files have them, with lists for tuples.
    own, saved = (asdict(kind.create(v)) for v in (parse_config(kind, config.to_toml()), read_config(kind, file)))
    may_change = _MAY_CHANGE + (_MAY_CHANGE_BEFORE_DECAY if config.schedule == "wsd" else ())
    if config.schedule == "wsd" and config.decay_epochs and not saved["decay_epochs"]:
        # The last part of a run, with its decay, may train longer forecasts than what came before, and its average
        # lags less behind weights that settle if it is a shorter one.
        may_change += ("rollout",) + (("ema",) if 0 < config.ema < saved["ema"] else ())
    reasons = {}
    if isinstance(config, PretrainConfig) and config.mask_ratio_end is not None:
        may_change = tuple(name for name in may_change if name != "epochs")
        reasons["epochs"] = " (--mask-ratio-end spreads the mask ratio over all epochs: it would jump)"
    changed = [name for name in sorted(own) if name not in may_change and own[name] != saved[name]]
    return [f"{name} is {own[name]!r}, was {saved[name]!r}{reasons.get(name, '')}" for name in changed]
