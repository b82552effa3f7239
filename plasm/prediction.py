"""Predicting what follows a user's clip: with what model, from which frames, and as what pictures.

Shapes: B clips, T input frames, T' output frames, C channels, H x W pixels.
"""

import logging
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

import plasm
from plasm import pictures, weights
from plasm.data import SAMPLES, FrameFormat, FrameStream, open_source, read_streams
from plasm.metrics import Metrics, VideoMetrics
from plasm.models.summary import summarize
from plasm.training import TRIVIAL_FORECASTS, forecast, frame_counts, load_model
from plasm.training.config import Config, option
from plasm.training.devices import choose_device

__all__ = ["PredictConfig", "Prediction", "predict"]

DEFAULT_MODEL = "plasm_mmnist_tiny"
_SAMPLE_CLIPS = SAMPLES / "clips.npz"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PredictConfig(Config):
    """What to predict, with what, and where to put it."""

    model: str | None = option(
        None, "Constructor; by default that of --weights, or else one with weights that fits the input."
    )
    weights: str | None = option(
        None,
        "Run, folder, hf-hub:OWNER/NAME, published name or .safetensors file; the model's published ones if not given.",
    )
    input: str | None = option(
        None, "Clip: a video, GIF, folder of images, .npy or .npz; the sample clips of the package if not given."
    )
    frames: int | None = option(
        None, "How many frames to predict; as many as the model was trained for if not given.", at_least=1
    )
    size: tuple[int, int] | None = option(None, "Height and width to bring the frames to.", at_least=1)
    fit: Literal["crop", "stretch"] = option("crop", "How --size is met: crop or stretch.")
    step: int = option(1, "Use every so-manieth frame of the input.", at_least=1)
    out: str = option(
        "predictions",
        "Folder for prediction.npy, .png and .gif; or a video file for input and prediction, such as out.mp4.",
    )
    device: str = option("auto", "cpu, cuda, ..., or auto: a GPU if there is one.")


@dataclass(frozen=True)
class Prediction:
    """What was predicted.

    Attributes:
        clip: What the model saw, (B, T, C, H, W).
        frames: What it predicted, (B, T', C, H, W), not clamped.
        metrics: Of the model and of the forecasts that need none, where the input goes on long enough to know.
        saved: What was written, in words.
    """

    clip: Tensor
    frames: Tensor
    metrics: dict[str, Metrics] | None
    saved: str


def predict(config: PredictConfig) -> Prediction:
    """Predict the frames that follow a clip, draw them, and measure them where the truth is known.

    Of a clip long enough for input and truth, the first frames are the input; of a shorter one the last.

    Raises:
        ValueError: If the input does not fit the model, or no model fits the input.
        OSError: If the input cannot be read, or the output not be written.
        plasm.weights.WeightsNotFoundError: If the model has no weights.
    """
    device = choose_device(config.device)
    given = load_model(config.model, config.weights) if config.model or config.weights else None
    streams = open_source(Path(config.input) if config.input else _SAMPLE_CLIPS, _channels(given) if given else 1)
    net = (given or _fitting_model(streams[0], config.step)).to(device).eval()
    in_frames, out_frames = frame_counts(net)
    num_frames = config.frames or out_frames
    frame_format = FrameFormat(_channels(net), config.size, config.fit)
    clips = read_streams(streams, frame_format, in_frames + num_frames, config.step)
    clip, target = _split(clips, in_frames, num_frames)
    frames = forecast(net)(clip.to(device), num_frames).cpu()
    saved = _save(clip, frames, target, Path(config.out), streams[0].rate)
    metrics = None
    if target is not None:
        forecasts = {"model": frames} | {name: make(clip, num_frames) for name, make in TRIVIAL_FORECASTS.items()}
        metrics = {name: _measure(made, target) for name, made in forecasts.items()}
    return Prediction(clip, frames, metrics, saved)


def _channels(model: nn.Module) -> int:
    channels = getattr(model, "in_chans", None)
    if not isinstance(channels, int):
        raise ValueError(f"{type(model).__name__} does not say how many channels it takes: it needs in_chans")
    return channels


def _fitting_model(stream: FrameStream, step: int) -> nn.Module:
    """The model with weights whose channels are nearest to the stream's, of those that it is long enough for.

    Raises:
        ValueError: If no model with weights fits.
        plasm.weights.WeightsNotFoundError: If no model has weights.
    """
    names = [name for name in plasm.list_models() if weights.tags(name)]
    if not names:
        return load_model(DEFAULT_MODEL, None)
    # Colour can be predicted in gray; an alpha channel is no colour.
    length, channels = -(-stream.num_frames // step), min(stream.channels, 3)
    takes = {name: (s.input_shape[0], s.input_shape[1]) for name, s in ((n, summarize(n)) for n in names)}
    fitting = [
        n for n in names if takes[n][0] <= length and takes[n][1] in {1: (1, 3), 3: (3, 1)}.get(channels, (channels,))
    ]
    if not fitting:
        known = ", ".join(f"{name} ({t} frames of {c} channel(s))" for name, (t, c) in takes.items())
        raise ValueError(
            f"no model with weights fits {stream.name}, which has {length} frames of {channels} channel(s); there are: "
            f"{known}. Train one, and give its run as --weights"
        )
    best = min(fitting, key=lambda name: (takes[name][1] != channels, name != DEFAULT_MODEL))
    if takes[best][1] != channels:
        _logger.warning("%s takes %d channel(s): %s is converted", best, takes[best][1], stream.name)
    return load_model(best, None)


def _save(clip: Tensor, prediction: Tensor, target: Tensor | None, out: Path, rate: Fraction | None) -> str:
    """Into a folder, or a video; returns what was written."""
    if out.suffix and not out.is_dir():
        out.parent.mkdir(parents=True, exist_ok=True)
        # Several clips stand side by side.
        frames = torch.cat([clip, prediction], 1)
        pictures.movie(rearrange(frames, "b t c h w -> t c h (b w)"), out, rate or 10)
        return str(out)
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "prediction.npy", prediction.numpy())
    pictures.strip(clip, prediction, target).save(out / "prediction.png")
    pictures.animation(clip, prediction, target, out / "prediction.gif")
    return f"{out}/prediction.gif, .png, .npy"


def _measure(prediction: Tensor, target: Tensor) -> Metrics:
    metrics = VideoMetrics()
    metrics.update(prediction, target)
    return metrics.compute()


def _split(clips: Tensor, in_frames: int, num_frames: int) -> tuple[Tensor, Tensor | None]:
    """Input and, where the clip goes on long enough, ground truth."""
    length = clips.shape[1]
    if length >= in_frames + num_frames:
        return clips[:, :in_frames], clips[:, in_frames : in_frames + num_frames]
    if length < in_frames:
        raise ValueError(f"the clip has {length} frames; the model needs {in_frames}")
    return clips[:, -in_frames:], None
