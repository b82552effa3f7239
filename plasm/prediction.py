"""Predicting what follows a user's clip: with what model, from which frames, and as what pictures.

Shapes: B clips, T input frames, T' output frames, C channels, H x W pixels.
"""

import fnmatch
import logging
import math
import re
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from plasm import pictures, weights
from plasm.config import Config, dictionary, option
from plasm.data import SAMPLES, FrameFormat, FrameStream, open_source, read_streams
from plasm.data.layouts import ArrayOptions
from plasm.devices import choose_device, clear_failures, move
from plasm.evaluation import BASELINES, Metrics, VideoMetrics, forecast, frame_mse
from plasm.exporting import through_onnx
from plasm.files import atomic_write, check_writable, require
from plasm.models import ModelInterface, forecasting, frame_counts, list_models, load_model, summarize

__all__ = ["PredictConfig", "Prediction", "predict"]

DEFAULT_MODEL = "plasm_mmnist_tiny"
_SAMPLE_CLIPS = SAMPLES / "clips.npz"
_VIDEO_ENDINGS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".gif")
# A model takes about a hundred times the memory of its clips.
_BATCH = 8
_DRAWN = 8
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PredictConfig(Config):
    """Options of a prediction: input, weights and output."""

    command = "predict"
    model: str | None = option(
        None,
        "Constructor; by default that of --weights, or else one with weights that fits the input. Repeated, or as a "
        "pattern such as '*_mmnist_tiny': models with published weights, whose forecasts are compared.",
    )
    weights: str | None = option(
        None,
        "Run, folder, hf-hub:OWNER/NAME, published name, .safetensors or exported file (.onnx, .pt2); the model's "
        "published ones if not given.",
    )
    input: str | None = option(
        None,
        "Clip: a video, GIF, TIFF, folder of images, or array (.npy, .npz, .h5, .nc); the sample clips of the package "
        "if not given.",
    )
    data: Literal["clips", "radar"] = option("clips", "What the input is: clips, or radar, composites of one event.")
    frames: int | None = option(
        None, "How many frames to predict; as many as the model was trained for if not given.", at_least=1
    )
    size: tuple[int, int] | None = option(None, "Height and width to bring the frames to.", at_least=1)
    fit: Literal["crop", "stretch"] = option("crop", "How --size is met: crop or stretch.")
    step: int = option(1, "Distance between the frames of the input that are used: 3 takes every third.", at_least=1)
    data_args: dict[str, Any] = dictionary(
        "Metadata that the input lacks, NAME=VALUE: axes=TCYX, value_range=(0,4095), array=NAME or fill=0."
    )
    out: str = option(
        "predictions",
        "Folder for prediction.npy, .png and .gif; or a video file for input and prediction, such as out.mp4; or, of "
        "radar, forecast.nc.",
    )
    device: str = option("auto", "cpu, cuda, ..., or auto: a GPU if there is one.")
    runtime: Literal["eager", "onnx"] = option(
        "eager", "eager, or onnx: by onnxruntime on the CPU, exported first; --weights FILE.onnx does so anyway."
    )
    trust: bool = option(
        False, "Run an exported file that was not exported on this machine: it is a program, so trust its author."
    )


@dataclass(frozen=True)
class Prediction:
    """The result of a prediction.

    Attributes:
        source: Whose weights predicted: a published name, or what was given.
        clip: What the model saw, (B, T, C, H, W).
        frames: What it predicted, (B, T', C, H, W), not clamped; of several models, the first one.
        metrics: Of the model ("model"; of several, each by its name) and of the forecasts that need none, where the
            input goes on long enough to know.
        saved: What was written, in words.
        drawn: How many of the clips are in the pictures, the first ones.
        stream: What the frames were read from, the first of several.
        published: The manifest's rows of the weights, of those that are published.
    """

    source: str
    clip: Tensor
    frames: Tensor
    metrics: dict[str, Metrics] | None
    saved: str
    drawn: int
    stream: FrameStream
    published: tuple[weights.Entry, ...] = ()


@forecasting()
def predict(config: PredictConfig) -> Prediction:
    """Predict the frames that follow a clip, draw them, and measure them where the truth is known.

    Of a clip long enough for input and truth, the first frames are the input; of a shorter one the last.

    Raises:
        ValueError: If the input does not fit the model, or no model fits the input.
        OSError: If the input cannot be read, or the output not be written.
        plasm.weights.WeightsNotFoundError: If the model has no weights.
        MemoryError: If memory ran out.
    """
    with clear_failures("fewer or smaller frames (--size) take less"):
        return _predict(config)


def _predict(config: PredictConfig) -> Prediction:
    if config.data == "radar":
        raise ValueError("radar is no clip: plasm.rain.predict_rain forecasts it")
    device, out = choose_device(config.device), Path(config.out)
    is_video = _check_out(out)
    names = named_models(config.model)
    if len(names) > 1 and config.weights is not None:
        raise ValueError(f"--weights are of one model; {', '.join(names)} have their published ones: leave it out")
    if len(names) > 1 and is_video:
        raise ValueError(f"forecasts of {len(names)} models are written into a folder, not as a video: got --out {out}")
    wanted: list[str | None] = [*names] if names or config.weights is None else [None]
    given = [load_model(name, config.weights, trust=config.trust) for name in wanted]
    value_range, options = _reading(config.data_args)
    file = _SAMPLE_CLIPS if config.input is None else Path(config.input)
    streams = open_source(file, _channels(given[0]) if given else 1, options)
    sources = [config.weights] if config.weights is not None else names or [_fitting_model(streams[0], config.step)]
    nets = [move(net, device) for net in given or [load_model(sources[0], None)]]
    in_frames, num_frames = _common_counts(dict(zip(sources, nets, strict=True)), config.frames)
    frame_format = FrameFormat(_channels(nets[0]), config.size, config.fit, value_range=value_range)
    clips = read_streams(streams, frame_format, in_frames + num_frames, config.step)
    clip, target = _split(clips, in_frames, num_frames)
    for source, net in zip(sources, nets, strict=True):
        _check_size(source, net, (clip.shape[-2], clip.shape[-1]))
    rows = tuple(row for row in map(_published, sources) if row)
    predicted: dict[str, Tensor] = {}
    for source, net in zip(sources, nets, strict=True):
        if config.runtime == "onnx":
            net = through_onnx(net, (clip.shape[-2], clip.shape[-1]), num_frames)
        predict_batch = forecast(net)
        parts = [predict_batch(part.to(device), num_frames).cpu() for part in clip.split(_BATCH)]
        predicted[source if len(nets) > 1 else "model"] = torch.cat(parts)
    metrics = None
    if target is not None:
        forecasts = predicted | {title: make(clip, num_frames) for title, make in BASELINES.items()}
        metrics = {title: _measure(made, target) for title, made in forecasts.items()}
    first = next(iter(predicted.values()))
    if len(nets) > 1:
        saved = _save_comparison(clip, predicted, target, out)
        return Prediction(", ".join(sources), clip, first, metrics, saved, min(_DRAWN, len(clip)), streams[0], rows)
    saved = _save(clip, first, target, out, _rate(streams[0].rate, config.step), is_video)
    name = rows[0].name if rows else sources[0]
    return Prediction(name, clip, first, metrics, saved, min(_DRAWN, len(clip)), streams[0], rows)


def named_models(model: str | None, radar: bool = False) -> list[str]:
    """The models that ``--model`` names: one, or several separated by commas, or those with weights of a pattern.

    A pattern with a dot is of all published names, MODEL.TAG; others are of models, whose default weights are meant.
    No clip is an input of models of radar and of others: a pattern finds the ones or the others.

    Args:
        model: The names; None for none.
        radar: Whether a pattern finds models of radar.

    Returns:
        The names, each once; of several with their tags, since default weights of two models may have seen different
        numbers of clips.

    Raises:
        ValueError: If a name is empty, or a pattern finds nothing.
        plasm.weights.WeightsNotFoundError: If one of several has no published weights.
    """
    given = [] if model is None else [name.strip() for name in model.split(",")]
    if not all(given):
        raise ValueError("--model has an empty name: `plasm list` names the models")
    rows = [row for row in weights.entries() if (row.data == "radar") is radar]
    names: list[str] = []
    for name in given:
        if not set(name) & set("*?["):
            names.append(name)
            continue
        found = fnmatch.filter({(row.name if "." in name else row.model): None for row in rows}, name)
        if not found:
            of = "of radar" if radar else "of clips"
            raise ValueError(
                f"no model {of} with published weights is called {name!r}; `plasm list --weights` names all"
            )
        names += sorted(found)
    if len(names) < 2:
        return names
    tagged = list(dict.fromkeys(weights.entry(*name.split(".", 1)).name for name in names))
    if len(tagged) == 1:
        _logger.warning("%s are the same weights: there is nothing to compare", " and ".join(names))
    return tagged


def _check_size(source: str, net: nn.Module, size: tuple[int, int]) -> None:
    """Refuse frames that a model with weights for each position does not take, before any model has forecast.

    Raises:
        ValueError: If they are of another size.
    """
    own, multiple = getattr(net, "img_size", None), getattr(net, "size_multiple", 1)
    if not getattr(net, "fixed_size", False) or own is None:
        return
    height, width = own
    # Frames are padded.
    if (-(-size[0] // multiple), -(-size[1] // multiple)) != (-(-height // multiple), -(-width // multiple)):
        raise ValueError(
            f"{source} has weights for each position of frames of {height} x {width}, these are of {size[0]} x "
            f"{size[1]}: --size {height} {width} brings them to its size"
        )


def _common_counts(nets: dict[str, nn.Module], wanted: int | None) -> tuple[int, int]:
    """How many frames models see that are compared, and how many they forecast: T' if no number is wanted.

    Raises:
        ValueError: If one takes other clips than the first, or forecasts another number of frames, and none is wanted.
    """
    (first, one), *others = nets.items()
    in_frames, out_frames = frame_counts(one)
    for name, net in others:
        if (frame_counts(net)[0], _channels(net)) != (in_frames, _channels(one)):
            counts = (f"{n} takes {frame_counts(m)[0]} frames of {_channels(m)} channel(s)" for n, m in
                      ((first, one), (name, net)))  # fmt: skip
            raise ValueError(f"only forecasts of the same clips compare: {', '.join(counts)}")
        if wanted is None and frame_counts(net)[1] != out_frames:
            raise ValueError(
                f"{first} forecasts {out_frames} frames and {name} {frame_counts(net)[1]}: say with --frames how many "
                f"are compared"
            )
    return in_frames, wanted or out_frames


def _reading(given: dict[str, Any]) -> tuple[tuple[float, float] | None, ArrayOptions]:
    """The range of values, and the options of arrays, that the user gave."""
    rest = dict(given)
    value_range = rest.pop("value_range", None)
    known = [f.name for f in fields(ArrayOptions)]
    if unknown := sorted(set(rest) - set(known)):
        raise ValueError(f"--data-arg takes value_range, {', '.join(known)}, got {', '.join(unknown)}")
    return value_range, ArrayOptions(**rest)


def _published(source: str) -> weights.Entry | None:
    """The manifest's row of weights, if they are published."""
    model, _, tag = source.partition(".")
    return next((row for row in weights.entries() if row.model == model and tag in ("", row.tag)), None)


def _check_out(out: Path) -> bool:
    """Whether a video is to be written, or a folder; checked before any work is done.

    Raises:
        ValueError: If the ending is of no video that can be written.
        OSError: If nothing can be written there.
        ImportError: If PyAV is needed and not installed.
    """
    is_video = out.suffix.lower() in _VIDEO_ENDINGS and not out.is_dir()
    # results.v2 and results.2 are folders; my.xyz looks like a file.
    if not is_video and not out.is_dir() and out.suffix and not re.fullmatch(r"\.v?\d+", out.suffix.lower()):
        raise ValueError(
            f"{out} cannot be written as a video: endings are {', '.join(_VIDEO_ENDINGS)}; a folder has none"
        )
    if not is_video and out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file; --out is a folder or a video")
    if is_video:
        require("av")
    check_writable(out)
    return is_video


def _channels(model: nn.Module) -> int:
    channels = ModelInterface.of(model).in_chans
    if not isinstance(channels, int):
        raise ValueError(f"{type(model).__name__} does not say how many channels it takes: it needs in_chans")
    return channels


def _fitting_model(stream: FrameStream, step: int) -> str:
    """Name of the model with weights whose channels are nearest to the stream's, of those that it is long enough for.

    Raises:
        ValueError: If no model with weights fits.
        plasm.weights.WeightsNotFoundError: If no model has weights.
    """
    # Those of radar see logarithms of rain, which no video shows.
    radar = {row.model for row in weights.entries() if row.data == "radar"}
    names = [name for name in list_models() if weights.tags(name) and name not in radar]
    if not names:
        return DEFAULT_MODEL
    # Colour can be predicted in gray; an alpha channel is no colour.
    length, channels = -(-stream.num_frames // step), min(stream.channels, 3)
    takes = {name: (s.input_shape[0], s.input_shape[1]) for name, s in ((n, summarize(n)) for n in names)}
    fitting = [
        n for n in names if takes[n][0] <= length and takes[n][1] in {1: (1, 3), 3: (3, 1)}.get(channels, (channels,))
    ]
    if not fitting:
        known = ", ".join(f"{name} ({t} frames of {c} channel(s))" for name, (t, c) in takes.items())
        shortest = min(frames for frames, _ in takes.values())
        used = f"one in {step} of its {stream.num_frames} frames, {length}" if step > 1 else f"{length} frames"
        short = f"It is too short: {used}, where {shortest} are needed at least. " if length < shortest else ""
        raise ValueError(
            f"no model with weights fits {stream.name}, which has {length} frames of {channels} channel(s); there are: "
            f"{known}. {short}Train one, and give its run as --weights"
        )
    best = min(fitting, key=lambda name: (takes[name][1] != channels, name != DEFAULT_MODEL))
    if takes[best][1] != channels:
        _logger.warning("%s takes %d channel(s): %s is converted", best, takes[best][1], stream.name)
    return best


def _rate(rate: Fraction | None, step: int) -> Fraction:
    """Frames a second at which every ``step``-th frame moves as fast as all of them, 10 where it is not known."""
    if not rate:
        return Fraction(10)
    # Phones write averages such as 1250000/41709; AVI's MPEG-4 counts no finer than in 65,535 parts.
    return (rate / step).limit_denominator(max(1, 65_535 // math.ceil(rate)))


def _save(clip: Tensor, prediction: Tensor, target: Tensor | None, out: Path, rate: Fraction, is_video: bool) -> str:
    """Into a folder, or a video; returns what was written. Of many clips all are written and a few drawn."""
    shown, drawn = pictures.drawable(clip[:_DRAWN]), pictures.drawable(prediction[:_DRAWN])
    truth = None if target is None else pictures.drawable(target[:_DRAWN])
    (out.parent if is_video else out).mkdir(parents=True, exist_ok=True)
    if is_video:
        # Several clips stand side by side.
        pictures.movie(rearrange(torch.cat([shown, drawn], 1), "b t c h w -> t c h (b w)"), out, rate)
        return str(out)
    _save_array(prediction, out / "prediction.npy")
    pictures.save_png(pictures.strip(shown, drawn, truth), out / "prediction.png")
    pictures.animation(shown, drawn, truth, out / "prediction.gif")
    return f"{out}/prediction.gif, .png, .npy"


def _save_array(frames: Tensor, file: Path) -> None:
    # By a handle, for NumPy appends .npy to a name.
    with atomic_write(file) as beside, beside.open("wb") as handle:
        np.save(handle, frames.numpy())


def _save_comparison(clip: Tensor, predicted: dict[str, Tensor], target: Tensor | None, out: Path) -> str:
    """Into a folder; returns what was written. The animation is of the first clip; an error is that of its clip."""
    out.mkdir(parents=True, exist_ok=True)
    for name, frames in predicted.items():
        _save_array(frames, out / f"{name}.npy")
    drawn = {name: pictures.drawable(frames[:_DRAWN]) for name, frames in predicted.items()}
    shown = pictures.drawable(clip[:_DRAWN])
    truth = None if target is None else pictures.drawable(target[:_DRAWN])
    labels = {name: [name] * len(shown) for name in predicted}
    if target is not None:
        for name, frames in predicted.items():
            errors = frame_mse(frames[:_DRAWN], target[:_DRAWN]).mean(1)
            labels[name] = [f"{name}, MSE {error:.1f}" for error in errors.tolist()]
    pictures.save_png(pictures.comparison(shown, drawn, truth, labels), out / "comparison.png")
    first = {labels[name][0].replace(", ", "\n"): frames[:1] for name, frames in drawn.items()}
    pictures.comparison_animation(shown[:1], first, None if truth is None else truth[:1], out / "comparison.gif")
    return f"{out}/comparison.gif, .png, and a .npy of each model"


def _measure(prediction: Tensor, target: Tensor) -> Metrics:
    metrics = VideoMetrics()
    for part, truth in zip(prediction.split(_BATCH), target.split(_BATCH), strict=True):
        metrics.update(part, truth)
    return metrics.compute()


def _split(clips: Tensor, in_frames: int, num_frames: int) -> tuple[Tensor, Tensor | None]:
    """Input and, where the clip goes on long enough, ground truth."""
    length = clips.shape[1]
    if length >= in_frames + num_frames:
        return clips[:, :in_frames], clips[:, in_frames : in_frames + num_frames]
    if length < in_frames:
        raise ValueError(f"the clip has {length} frames; the model needs {in_frames}")
    return clips[:, -in_frames:], None
