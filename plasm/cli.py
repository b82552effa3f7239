"""The ``plasm`` command."""

import ast
import logging
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

try:
    import click
    import matplotlib  # noqa: F401
    import skimage  # noqa: F401
except ImportError as error:
    raise SystemExit(f"the plasm command needs more than the library ({error}): pip install 'plasm[cli]'") from error

import numpy as np
import torch
from einops import rearrange

import plasm
from plasm import cli_weights, data, pictures, training, weights
from plasm.metrics import Metrics, VideoMetrics
from plasm.models import PLASM
from plasm.models.summary import summarize
from plasm.training.config import RunConfig
from plasm.training.publishing import record_metrics
from plasm.training.trainer import choose_device

__all__ = ["main"]

DEFAULT_MODEL = "plasm_mmnist_tiny"
_DICTIONARIES = ("data_args", "model_args")
SAMPLE_CLIPS = data.SAMPLES / "clips.npz"


_USER_ERRORS = (
    ValueError,
    OSError,
    ImportError,
    FloatingPointError,
    training.LostProcessError,
    weights.WeightsNotFoundError,
)


class _Group(click.Group):
    """Turns what a user can mend into one clear line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except training.RunInterruptedError as error:
            click.echo(str(error), err=True)
            sys.exit(128 + error.signal)
        except _USER_ERRORS as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group, context_settings={"show_default": True})
@click.version_option(plasm.__version__, prog_name="plasm")
def main() -> None:
    """Video prediction: list models, predict frames, train and evaluate."""
    # Modules that users name, MODULE:NAME, lie where they are.
    sys.path.insert(0, "")
    logging.basicConfig(format="%(message)s", level=logging.WARNING)


main.add_command(cli_weights.push)
main.add_command(cli_weights.convert)


@main.command(name="list")
@click.option("--weights", "of_weights", is_flag=True, help="List the published weights instead, with all there is.")
def list_command(of_weights: bool) -> None:
    """List every model: parameters, multiply-adds of a clip, shapes (T, C, H, W), and weights."""
    if of_weights:
        cli_weights.print_weights()
        return
    click.echo(f"{'model':<20}{'parameters':>12}{'multiply-adds':>15}  {'input':<19}{'output':<19}weights")
    for name in plasm.list_models():
        summary = summarize(name)
        click.echo(
            f"{name:<20}{summary.parameters / 1e6:>10.2f} M{summary.multiply_adds / 1e9:>13.2f} G  "
            f"{summary.input_shape!s:<19}{summary.output_shape!s:<19}{', '.join(summary.tags) or '-'}"
        )


def _options(config: type[RunConfig]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """An option for each field of a configuration; what is not given is None, and the field's default holds."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for f in reversed(fields(config)):
            # A dictionary is given an item at a time.
            name = f"--{f.name.removesuffix('s') if f.name in _DICTIONARIES else f.name}".replace("_", "-")
            help_text = f.metadata["help"]
            kwargs: dict[str, Any] = {"default": None, "show_default": False}
            kinds = [kind for kind in get_args(f.type) if kind is not type(None)] or [f.type]
            if f.name in _DICTIONARIES:
                kwargs |= {"multiple": True, "metavar": "NAME=VALUE"}
            elif get_origin(f.type) is Literal:
                kwargs["type"] = click.Choice(get_args(f.type))
            elif kinds[0] is bool:
                name = f"{name}/--no-{name[2:]}"
            else:
                kwargs["type"] = kinds[0]
            if f.default is MISSING and f.default_factory is MISSING:
                help_text += "  [required]"
            elif f.default is not MISSING and f.default is not None:
                help_text += f"  [default: {f.default}]"
            command = click.option(name, f.name, help=help_text, **kwargs)(command)
        for name, kwargs in reversed(_RUN_OPTIONS.items()):
            command = click.option(name, **kwargs)(command)
        return command

    return decorate


# How a run is made, where the options above say what it is.
_RUN_OPTIONS: dict[str, dict[str, Any]] = {
    "--config": {
        "type": click.Path(path_type=Path),
        "help": "TOML file with a key for each of these options (`data_args` and `model_args` are tables), such as "
        "RUN/config.toml; what is given here goes over it.",
    },
    "--resume": {
        "is_flag": True,
        "help": "Go on from the last checkpoint in --out, bit for bit; from the start if there is none.",
    },
    "--fast-dev-run": {
        "is_flag": True,
        "help": "Go through every stage with a few clips, to see that nothing fails, and keep nothing.",
    },
}


def _run(kind: type[Any], options: dict[str, Any]) -> None:
    file, resume, fast_dev_run = (options.pop(name) for name in ("config", "resume", "fast_dev_run"))
    dictionaries = {name: _pairs(name, options.pop(name)) for name in _DICTIONARIES}
    given = {name: value for name, value in options.items() if value is not None} | dictionaries
    training.run(training.make_config(kind, given, file), resume=resume, fast_dev_run=fast_dev_run)


def _pairs(option: str, items: tuple[str, ...]) -> dict[str, Any]:
    pairs = {}
    for item in items:
        name, separator, value = item.partition("=")
        if not separator:
            raise ValueError(f"--{option.removesuffix('s').replace('_', '-')} takes NAME=VALUE, got {item!r}")
        try:
            pairs[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            pairs[name] = value
    return pairs


@main.command()
@_options(training.PretrainConfig)
def pretrain(**options: Any) -> None:
    """Phase 1: learn encoder and decoder by rebuilding masked clips.

    Defaults are the paper's for the model; those below hold where it has none.
    """
    _run(training.PretrainConfig, options)


@main.command()
@_options(training.TrainConfig)
def train(**options: Any) -> None:
    """Phase 2: learn to predict future frames.

    Defaults are the paper's for the model; those below hold where it has none.
    """
    _run(training.TrainConfig, options)


# The factors by which the field's tables print these data sets.
_TABLE_FACTORS: dict[str, dict[str, float]] = {"taxibj": {"mse": 100}, "human36m": {"mse": 0.1, "mae": 0.01}}


def _print_metrics(table: dict[str, Metrics], name: str = "") -> None:
    columns = {"MSE": "mse", "MAE": "mae", "SSIM": "ssim", "SSIM (published)": "ssim_published", "PSNR (dB)": "psnr"}
    factors = _TABLE_FACTORS.get(name, {})
    titles = [title + (f" x{factors[key]:g}" if key in factors else "") for title, key in columns.items()]
    width = max(map(len, table)) + 2
    click.echo(" " * width + "".join(f"{title:>18}" for title in titles))
    for row, metrics in table.items():
        scaled = {key: metrics.means[key] * factors.get(key, 1) for key in columns.values()}
        values = (f"{value:>18.{4 if 'ssim' in key else 2}f}" for key, value in scaled.items())
        click.echo(f"{row:<{width}}" + "".join(values))


_SHOWN_CLIPS = 4


@main.group(name="data")
def data_command() -> None:
    """Prepare data sets, count their clips, and draw some."""


@data_command.command()
@click.argument("name", type=click.Choice(["kth"]))
@click.option("--data-dir", required=True, type=Path, help="Folder of the data set's files; the cache goes there, too.")
@click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    help="What to do at a missing or damaged video.",
)
def prepare(name: str, data_dir: Path, on_error: data.OnError) -> None:
    """Decode a data set once into a file that is mapped. A run that was stopped goes on where it was."""
    cache = data.prepare_kth(data_dir, on_error=on_error)
    click.echo(f"{cache}: {cache.stat().st_size / 2**20:.0f} MiB")
    click.echo("Clips are cut from the ends of runs of frames backwards; docs/data/kth.md says how and why:")
    for num_frames in (30, 50):
        try:
            _print_counts(name, data_dir, num_frames, {})
        except ValueError as error:
            # The cache is made, whatever can be cut from it.
            click.echo(str(error))


@data_command.command()
@click.argument("name")
@click.option("--data-dir", required=True, type=Path, help="Folder of the data set's files.")
@click.option("--num-frames", type=click.IntRange(min=1), required=True, help="Input and output frames of a clip.")
@click.option("--data-arg", "data_args", multiple=True, metavar="NAME=VALUE", help="Option of the data set.")
def count(name: str, data_dir: Path, num_frames: int, data_args: tuple[str, ...]) -> None:
    """Count the clips of each split, beside the paper's numbers."""
    _print_counts(name, data_dir, num_frames, _pairs("data_args", data_args))


@data_command.command()
@click.argument("name")
@click.option("--data-dir", required=True, type=Path, help="Folder of the data set's files.")
@click.option("--num-frames", type=click.IntRange(min=1), required=True, help="Input and output frames of a clip.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Picture to write: a .png.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="train", help="Where clips come from.")
@click.option("--data-arg", "data_args", multiple=True, metavar="NAME=VALUE", help="Option of the data set.")
def show(
    name: str, data_dir: Path, num_frames: int, out: Path, split: Literal["train", "val", "test"],
    data_args: tuple[str, ...],
) -> None:  # fmt: skip
    """Draw four clips, from the split's first to its last, as rows of frames."""
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out is a .png, got {out}")
    clips = data.create_dataset(name, data_dir, split, num_frames=num_frames, **_pairs("data_args", data_args))
    total: int = len(clips)  # type: ignore[arg-type]
    # Few clips are drawn once each.
    indices = sorted({round(index) for index in np.linspace(0, total - 1, _SHOWN_CLIPS).tolist()})
    sheet = pictures.contact_sheet(torch.stack([clips[index] for index in indices]), [f"clip {i:,}" for i in indices])
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out)
    click.echo(f"{out}: {len(indices)} of {total:,} clips of {name}, {split}")


def _print_counts(name: str, root: Path, num_frames: int, options: dict[str, Any]) -> None:
    for split, (number, published) in data.count_clips(name, root, num_frames=num_frames, **options).items():
        note = ", with the validation clips" if split == "train" else ""
        paper = "" if published is None else f" (the paper: {published:,}{note})"
        click.echo(f"{split:<6}{number:>9,} clips of {num_frames} frames{paper}")


@main.command()
@click.option("--model", help="Constructor; taken from the weights' config if that is there.")
@click.option(
    "--weights",
    "source",
    help="Run, folder, hf-hub:OWNER/NAME or .safetensors file; the model's published weights if not given.",
)
@click.option("--data", "name", default="mmnist", help=f"{', '.join(data.list_datasets())}, or MODULE:NAME.")
@click.option("--data-dir", required=True, type=Path, help="Folder of the data set's files.")
@click.option("--data-arg", "data_args", multiple=True, metavar="NAME=VALUE", help="Option of the data set.")
@click.option(
    "--num-clips", default=10_000, type=click.IntRange(min=1), help="Use the first so many clips of the test set."
)
@click.option("--batch-size", default=10, type=click.IntRange(min=1), help="Clips at a time.")
@click.option("--workers", default=0, help="Processes that load clips; 0 loads them in this one.")
@click.option("--device", default="auto", help="cpu, cuda, ..., or auto: a GPU if there is one.")
@click.option("--per-frame/--no-per-frame", default=False, help="Print every metric for each predicted frame, too.")
def evaluate(
    model: str | None, source: str | None, name: str, data_dir: Path, data_args: tuple[str, ...], num_clips: int,
    batch_size: int, workers: int, device: str, per_frame: bool,
) -> None:  # fmt: skip
    """Measure a model on the test set, beside two forecasts that need no model.

    Of weights in a folder, what was measured is written beside them, for the card of `plasm push`: metrics.json.
    """
    net = training.load_model(model, source).eval()
    in_frames, out_frames = training.frame_counts(net)
    clips = data.create_dataset(
        name, data_dir, "test", num_clips=num_clips, num_frames=in_frames + out_frames, **_pairs("data_args", data_args)
    )
    with training.join_world(choose_device(device)) as world:
        forecasts = {"model": training.forecast(net.to(world.device)), **training.TRIVIAL_FORECASTS}
        table = training.evaluate(
            forecasts, clips, in_frames, out_frames, num_clips=num_clips, batch_size=batch_size, world=world,
            workers=workers,
        )  # fmt: skip
    if not world.is_first:
        return
    click.echo(f"{table['model'].num_clips} test clips of {name}, {in_frames} -> {out_frames} frames")
    _print_metrics(table, name)
    if source is not None and Path(source).is_dir():
        arguments = "".join(f" --data-arg {argument}" for argument in data_args)
        file = record_metrics(
            Path(source), table, name, f"--data {name} --data-dir DIR{arguments} --num-clips {num_clips}"
        )
        click.echo(f"written to {file}")
    if per_frame:
        click.echo("\nframe" + "".join(f"{key:>16}" for key in table["model"].per_frame))
        for number, row in enumerate(zip(*table["model"].per_frame.values(), strict=True), start=1):
            click.echo(f"{number:<5}" + "".join(f"{value:>16.4f}" for value in row))


@main.command()
@click.option(
    "--model", help="Constructor; by default that of --weights, or else one with weights that fits the input."
)
@click.option(
    "--weights",
    "source",
    help="Run, folder, hf-hub:OWNER/NAME or .safetensors file; the model's published weights if not given.",
)
@click.option(
    "--input",
    "file",
    type=Path,
    help="Clip: a video, GIF, folder of images, .npy or .npz.  [default: the sample clips of the package]",
)
@click.option(
    "--frames",
    type=click.IntRange(min=1),
    help="How many frames to predict; by default as many as the model was trained for.",
)
@click.option("--size", type=click.IntRange(min=1), nargs=2, help="Height and width to bring the frames to.")
@click.option("--fit", type=click.Choice(["crop", "stretch"]), default="crop", help="How --size is met.")
@click.option("--step", type=click.IntRange(min=1), default=1, help="Use every so-manieth frame of the input.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="predictions",
    help="Folder for prediction.npy, .png and .gif; or a video file for input and prediction, such as out.mp4.",
)
@click.option("--device", default="auto", help="cpu, cuda, ..., or auto: a GPU if there is one.")
def predict(
    model: str | None, source: str | None, file: Path | None, frames: int | None, size: tuple[int, int] | None,
    fit: data.Fit, step: int, out: Path, device: str,
) -> None:  # fmt: skip
    """Predict the frames that follow a clip, draw them, and measure them where the truth is known.

    Of a clip long enough for input and truth, the first frames are the input; of a shorter one the last.
    """
    where = choose_device(device)
    given = training.load_model(model, source) if model or source else None
    streams = data.open_source(file or SAMPLE_CLIPS, given.in_chans if given else 1)
    net = (given or _fitting_model(streams[0], step)).to(where).eval()
    num_frames = frames or net.out_frames
    clips = data.read_streams(streams, data.FrameFormat(net.in_chans, size, fit), net.in_frames + num_frames, step)
    clip, target = _split(clips, net, num_frames)
    prediction = net.predict(clip.to(where), num_frames).cpu()
    saved = _save_prediction(clip, prediction, target, out, streams[0].rate)
    click.echo(f"{len(clip)} clip(s), {clip.shape[1]} -> {num_frames} frames: {saved}")
    if target is not None:
        forecasts = {"model": prediction} | {
            name: forecast(clip, num_frames) for name, forecast in training.TRIVIAL_FORECASTS.items()
        }
        _print_metrics({name: _measure(forecast, target) for name, forecast in forecasts.items()})


def _fitting_model(stream: data.FrameStream, step: int) -> PLASM:
    """The model with weights whose channels are nearest to the stream's, of those that it is long enough for.

    Raises:
        ValueError: If no model with weights fits.
        plasm.weights.WeightsNotFoundError: If no model has weights.
    """
    names = [name for name in plasm.list_models() if weights.tags(name)]
    if not names:
        return training.load_model(DEFAULT_MODEL, None)
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
        click.echo(f"{best} takes {takes[best][1]} channel(s): {stream.name} is converted", err=True)
    return training.load_model(best, None)


def _save_prediction(
    clip: torch.Tensor, prediction: torch.Tensor, target: torch.Tensor | None, out: Path, rate: Fraction | None
) -> str:
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


def _measure(prediction: torch.Tensor, target: torch.Tensor) -> Metrics:
    metrics = VideoMetrics()
    metrics.update(prediction, target)
    return metrics.compute()


def _split(clips: torch.Tensor, net: PLASM, num_frames: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Input and, where the clip goes on long enough, ground truth."""
    length = clips.shape[1]
    if length >= net.in_frames + num_frames:
        return clips[:, : net.in_frames], clips[:, net.in_frames : net.in_frames + num_frames]
    if length < net.in_frames:
        raise ValueError(f"the clip has {length} frames; the model needs {net.in_frames}")
    return clips[:, -net.in_frames :], None
