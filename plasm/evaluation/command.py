"""Weights measured on the test set of a data set, beside the baselines: what ``plasm evaluate`` does."""

import logging
import shlex
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from plasm import weights
from plasm.config import Config, dictionary, option
from plasm.data import GIVEN_BY_COMMANDS, create_dataset, first_clip
from plasm.devices import choose_device, clear_failures, move
from plasm.distributed import init_process_group
from plasm.models import ModelInterface, frame_counts, load_model
from plasm.runs import record_metrics
from plasm.weights.card import without_folder
from plasm.weights.files import WEIGHTS_NAME

from .forecasts import BASELINES, Forecast, TimedForecast, forecast
from .lpips import load_lpips
from .metrics import Metrics
from .scoring import evaluate

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Config):
    """Options of an evaluation: weights, data and metrics."""

    command = "evaluate"
    model: str | None = option(None, "Constructor; taken from the weights' config if that is there.")
    weights: str | None = option(
        None,
        "Run, folder, hf-hub:OWNER/NAME, published name, .safetensors or exported file (.onnx, .pt2); the model's "
        "published ones if not given.",
    )
    data: str = option("mmnist", "Data set: a name as for training, or MODULE:NAME for your own.")
    data_dir: str = option(MISSING, "Folder of the data set's files.")
    num_clips: int = option(10_000, "Number of clips of the test set to use, from the first.", at_least=1)
    frames: int | None = option(
        None,
        "Frames to predict of each clip; the model's T' by default. For more it feeds its forecasts back.",
        at_least=1,
    )
    batch_size: int = option(10, "Clips at a time.", at_least=1)
    workers: int = option(0, "Loader processes per process; 0 loads clips in the process itself.", at_least=0)
    device: str = option("auto", "cpu, cuda, ..., or auto: a GPU if there is one.")
    per_frame: bool = option(False, "Print every metric for each predicted frame, too.")
    published: bool = option(
        False, "Add the scores that compare with papers where their code computes others, by the names of those papers."
    )
    lpips: str | None = option(
        None,
        "Add LPIPS, with torchvision's ImageNet weights of AlexNet: a file, or `download`. Needs the extra lpips.",
    )
    trust: bool = option(
        False, "Run an exported file that was not exported on this machine: it is a program, so trust its author."
    )
    out: str = option("scores", "Folder for the tables and pictures of radar.")
    data_args: dict[str, Any] = dictionary(
        "Option of the data set, NAME=VALUE, such as on_error=skip.", given=(*GIVEN_BY_COMMANDS, "num_clips")
    )


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        metrics: Of the model and of each baseline.
        in_frames: T.
        out_frames: T'.
        frame_values: C * H * W.
        frames_per_second: That the model predicted, of all clips, over all processes.
        machine: What computed: the kind of device, and how many where there are several.
        file: Where it was written, ``metrics.json`` of a folder of weights.
    """

    metrics: dict[str, Metrics]
    in_frames: int
    out_frames: int
    frame_values: int
    frames_per_second: float
    machine: str
    file: Path | None


def run(config: EvaluateConfig) -> Evaluation | None:
    """Measure weights on the first test clips, beside the baselines.

    Of weights in a folder, the metrics are written beside them, for the card of ``plasm push``; where that fails, a
    warning says so. Under torchrun every process calls it, with the same arguments.

    Returns:
        What was measured, in the first process; None in the others.

    Raises:
        ValueError: If the configuration does not fit the model or the data.
        OSError: If weights or clips cannot be read.
        plasm.weights.WeightsNotFoundError: If the model has no weights.
        MemoryError: If memory ran out.
        ChildProcessError: If a process that loads clips was killed.
    """
    if config.data == "radar":
        raise ValueError("radar is measured on whole composites: plasm.rain.run does it")
    folder = Path(config.weights) if config.weights is not None and Path(config.weights).is_dir() else None
    net = load_model(config.model, config.weights, trust=config.trust)
    sha256 = _sha256_of(net, folder / WEIGHTS_NAME) if folder and (folder / WEIGHTS_NAME).is_file() else ""
    in_frames, out_frames = frame_counts(net)
    out_frames = config.frames or out_frames
    clips = create_dataset(
        config.data, Path(config.data_dir), "test", num_clips=config.num_clips, num_frames=in_frames + out_frames,
        **config.data_args,
    )  # fmt: skip
    wanted = ModelInterface.of(net).in_chans
    channels = first_clip(clips).shape[1] if len(clips) else wanted  # type: ignore[arg-type]
    if wanted not in (None, channels):
        raise ValueError(
            f"{config.data} has clips of {channels} channel(s), the model takes {wanted}: give an option of the data "
            f"set, such as --data-arg channels={wanted} of clips"
        )
    # Before all clips are read: it may fail.
    lpips = load_lpips(None if config.lpips == "download" else config.lpips) if config.lpips is not None else None
    with clear_failures("a smaller --batch-size takes less"), init_process_group(choose_device(config.device)) as group:
        timed = TimedForecast(forecast(move(net, group.device)), group.device)
        forecasts: dict[str, Forecast] = {"model": timed, **BASELINES}
        metrics = evaluate(
            forecasts, clips, in_frames, out_frames, num_clips=config.num_clips, batch_size=config.batch_size,
            group=group, workers=config.workers, published=config.published, lpips=lpips and lpips.to(group.device),
        )  # fmt: skip
        speed = group.sum(torch.tensor(timed.frames_per_second, dtype=torch.float64)).item()
    if not group.is_first:
        return None
    file = None
    if folder:
        means = {name: each.means for name, each in metrics.items()}
        try:
            file = record_metrics(folder, sha256, means, metrics["model"].num_clips, config.data, _options(config))
        except OSError as error:
            # What was measured is right, and the caller's.
            _logger.warning("not written beside the weights: %s", error)
    machine = f"{group.size} x {group.device.type}" if group.size > 1 else group.device.type
    return Evaluation(metrics, in_frames, out_frames, clips[0][0].numel(), speed, machine, file)


def _options(config: EvaluateConfig) -> str:
    """The options of `plasm evaluate` that repeat the measurement, without --weights."""
    # A path says something on one machine alone.
    given = (f"{name}={without_folder(value)}" for name, value in config.data_args.items())
    extra = "".join(f" --data-arg {shlex.quote(item)}" for item in given)
    extra += f" --model {config.model}" if ":" in (config.model or "") else ""
    extra += f" --frames {config.frames}" if config.frames else ""
    extra += " --published" if config.published else ""
    extra += f" --lpips {config.lpips if config.lpips == 'download' else 'FILE'}" if config.lpips else ""
    return f"--data {config.data} --data-dir DIR{extra} --num-clips {config.num_clips}"


def _sha256_of(net: nn.Module, file: Path) -> str:
    """The sha256 of a file whose tensors are the model's: what is measured is written down as that of this file.

    Raises:
        OSError: If they are others: the file was exchanged since it was loaded.
    """
    sha256, state = weights.file_sha256(file), net.state_dict()
    try:
        tensors = weights.load_tensors(file, sha256)
        same = all(name in state and torch.equal(state[name], each.to(state[name])) for name, each in tensors.items())
    except OSError:
        same = False
    if not same:
        raise OSError(f"{file} changed while it was loaded: a run trains there; try again")
    return sha256
