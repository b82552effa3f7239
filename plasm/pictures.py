"""Clips as pictures: strips, animations, and curves of a training run. Needs Pillow, and curves matplotlib.

Shapes: B clips, T frames, C channels, H x W pixels in [0, 1].
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from plasm.files import atomic_write, import_without_settings, require

__all__ = ["animation", "comparison", "comparison_animation", "contact_sheet", "curves", "drawable", "movie", "strip"]

_LABEL_WIDTH, _LABEL_HEIGHT, _GAP = 92, 16, 2
# FFmpeg's names where they are not the ending.
_FORMATS = {".mkv": "matroska", ".m4v": "mp4", ".ts": "mpegts"}
_INK, _PAPER, _LINE = (30, 30, 30), (255, 255, 255), (120, 120, 120)


def drawable(clips: Tensor) -> Tensor:
    """The channels of clips (B, T, C, H, W) that a picture shows: up to three are colours; of more, the first."""
    return clips[:, :, :1] if clips.shape[2] > 3 else clips


def _to_rgb(frames: Tensor, side: int = 64) -> Tensor:
    """(..., C, H, W) floats -> (..., H', W', 3) uint8; one channel is gray, two are red and green; small ones grow."""
    channels = frames.shape[-3]
    if channels == 1:
        frames = frames.expand(*frames.shape[:-3], 3, *frames.shape[-2:])
    elif channels == 2:
        frames = torch.cat([frames, torch.zeros_like(frames[..., :1, :, :])], -3)
    elif channels != 3:
        raise ValueError(f"a picture shows 1, 2 or 3 channels, got {channels}")
    scale = max(1, round(side / min(frames.shape[-2:])))
    frames = frames.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    return rearrange((frames.clamp(0, 1) * 255).round().byte().cpu(), "... c h w -> ... h w c")


def _rows(shown: Tensor, prediction: Tensor, target: Tensor | None, name: str = "prediction") -> dict[str, Tensor]:
    rows = {"input": shown}
    if target is not None:
        rows["ground truth"] = target
    rows[name] = prediction
    if target is not None:
        rows["difference"] = (prediction.clamp(0, 1) - target).abs()
    return rows


def strip(shown: Tensor, prediction: Tensor, target: Tensor | None = None, follows: bool = True) -> Image.Image:
    """Draw clips as rows of frames: input, ground truth, prediction, difference, with frame numbers on top.

    Args:
        shown: (B, T, C, H, W), what the model saw.
        prediction: (B, T', C, H, W).
        target: (B, T', C, H, W), if it is known.
        follows: The predicted frames come after the input, so that their numbers start at T + 1; else they are the
            input's, rebuilt.

    Returns:
        The clips one below the other.
    """
    first, output = (shown.shape[1] + 1, "prediction") if follows else (1, "reconstruction")
    return _sheet(_rows(shown.float(), prediction.float(), target, output), first)


def comparison(
    shown: Tensor,
    predictions: Mapping[str, Tensor],
    target: Tensor | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> Image.Image:
    """Draw clips as rows of frames: input, ground truth, and what each of several models predicts.

    Args:
        shown: (B, T, C, H, W), what the models saw.
        predictions: (B, T', C, H, W) by name.
        target: (B, T', C, H, W), if it is known.
        labels: What stands before the row of a name in each clip, in place of the name.

    Returns:
        The clips one below the other.
    """
    truth = {} if target is None else {"ground truth": target.float()}
    named = {name: frames.float() for name, frames in predictions.items()}
    return _sheet({"input": shown.float(), **truth, **named}, shown.shape[1] + 1, labels or {})


def _sheet(clips: Mapping[str, Tensor], first: int, labels: Mapping[str, Sequence[str]] | None = None) -> Image.Image:
    """Rows of each clip below each other; the numbers of the second row's frames begin with ``first``."""
    rows = {name: _to_rgb(row) for name, row in clips.items()}
    height, width = rows["input"].shape[2:4]
    columns = max(row.shape[1] for row in rows.values())
    named = {name: (labels or {}).get(name, [name] * len(row)) for name, row in rows.items()}
    texts = [text for each in named.values() for text in each]
    label_width = max([_LABEL_WIDTH, *(round(_font().getlength(text)) + 12 for text in texts)])
    # The input's frame numbers stand over the input, those of the future over the rows below.
    block = len(rows) * (height + _GAP) + 2 * _LABEL_HEIGHT + 3 * _GAP
    count = len(rows["input"])
    image = Image.new("RGB", (label_width + columns * (width + _GAP), count * block), _PAPER)
    draw = ImageDraw.Draw(image)
    for clip in range(count):
        y = clip * block
        for name, row in rows.items():
            if name == "input" or list(rows).index(name) == 1:
                _draw_numbers(draw, y, width, 1 if name == "input" else first, row.shape[1], label_width)
                y += _LABEL_HEIGHT
            _draw_row(image, y, named[name][clip], row[clip], label_width)
            y += height + _GAP
        if clip + 1 < count:
            draw.line([(0, y + _GAP), (image.width, y + _GAP)], _LINE)
    return image


def contact_sheet(clips: Tensor, labels: Sequence[str], height: int = 64) -> Image.Image:
    """Draw clips one below the other, each a row of frames, with frame numbers on top.

    Args:
        clips: (B, T, C, H, W).
        labels: What stands before each row.
        height: Higher frames are made smaller, to this.

    Raises:
        ValueError: If the clips have other than 1, 2 or 3 channels.
    """
    if clips.shape[-2] > height:
        size = height, max(1, round(clips.shape[-1] * height / clips.shape[-2]))
        flat = F.interpolate(clips.flatten(0, 1).float(), size, mode="bilinear", antialias=True, align_corners=False)
        clips = flat.unflatten(0, clips.shape[:2])
    rows = _to_rgb(clips.float(), height)
    step, width = rows.shape[2] + _GAP, rows.shape[3]
    columns = rows.shape[1]
    image = Image.new("RGB", (_LABEL_WIDTH + columns * (width + _GAP), _LABEL_HEIGHT + len(rows) * step), _PAPER)
    _draw_numbers(ImageDraw.Draw(image), 0, width, 1, columns)
    for number, (label, row) in enumerate(zip(labels, rows, strict=True)):
        _draw_row(image, _LABEL_HEIGHT + number * step, label, row)
    return image


def _font() -> Any:
    return ImageFont.load_default(11)


def _draw_numbers(
    draw: ImageDraw.ImageDraw, y: int, width: int, first: int, count: int, labels: int = _LABEL_WIDTH
) -> None:
    """Frame numbers over a row whose frames are so wide, beside the labels."""
    for column in range(count):
        x = labels + column * (width + _GAP) + width // 2
        draw.text((x, y + _LABEL_HEIGHT // 2), f"{first + column}", _INK, _font(), anchor="mm")


def _draw_row(image: Image.Image, y: int, label: str, frames: Tensor, labels: int = _LABEL_WIDTH) -> None:
    """A label and, beside it, (T, H, W, 3) uint8 frames."""
    height, width = frames.shape[1:3]
    ImageDraw.Draw(image).text((labels - 6, y + height // 2), label, _INK, _font(), anchor="rm")
    for column, frame in enumerate(frames):
        image.paste(Image.fromarray(frame.numpy()), (labels + column * (width + _GAP), y))


def animation(
    shown: Tensor, prediction: Tensor, target: Tensor | None, file: Path, columns: int = 2, seconds: float = 0.2
) -> None:
    """Write an animated GIF: for each clip, side by side, ground truth (if known), prediction and difference.

    Args:
        shown: (B, T, C, H, W), played first; (in place of the prediction while it lasts).
        prediction: (B, T', C, H, W).
        target: (B, T', C, H, W), if it is known.
        file: Where to write.
        columns: Clips in a row.
        seconds: Time of a frame.
    """
    rows = _rows(shown.float(), prediction.float(), target)
    first = rows.pop("input")
    starts = {name: torch.zeros_like(first) if name == "difference" else first for name in rows}
    clips = {name: _to_rgb(torch.cat([starts[name], frames], 1), 128) for name, frames in rows.items()}
    panels = [(name, frames[clip]) for clip in range(len(shown)) for name, frames in clips.items()]
    _animate(panels, shown.shape[1], file, columns * len(clips), seconds)


def comparison_animation(
    shown: Tensor,
    predictions: Mapping[str, Tensor],
    target: Tensor | None,
    file: Path,
    columns: int = 5,
    seconds: float = 0.2,
) -> None:
    """Write an animated GIF of one clip: ground truth (if known) and what each of several models predicts.

    Args:
        shown: (1, T, C, H, W), played first in every panel.
        predictions: (1, T', C, H, W) by what stands over the panel, in one line or several.
        target: (1, T', C, H, W), if it is known.
        file: Where to write.
        columns: Panels in a row.
        seconds: Time of a frame.
    """
    named = {**({} if target is None else {"ground truth": target}), **predictions}
    panels = [(name, _to_rgb(torch.cat([shown, frames], 1).float()[0], 128)) for name, frames in named.items()]
    _animate(panels, shown.shape[1], file, min(columns, len(panels)), seconds)


def _animate(panels: Sequence[tuple[str, Tensor]], shown: int, file: Path, columns: int, seconds: float) -> None:
    """Write a GIF of panels with labels, (T + T', h, w, 3) uint8 each, the first frames of which are the input."""
    height, width = panels[0][1].shape[1:3]
    lines = [line for name, _ in panels for line in name.split("\n")]
    wide = max(width, *(round(_font().getlength(line)) + 8 for line in lines)) + _GAP
    above = _LABEL_HEIGHT * max(name.count("\n") + 1 for name, _ in panels)
    high = height + above + _GAP
    images = []
    for number in range(len(panels[0][1])):
        image = Image.new("RGB", (columns * wide, -(-len(panels) // columns) * high + _LABEL_HEIGHT), _PAPER)
        draw = ImageDraw.Draw(image)
        draw.text((4, 1), f"frame {number + 1}: {'input' if number < shown else 'future'}", _INK, _font())
        for position, (name, frames) in enumerate(panels):
            x, y = position % columns * wide, position // columns * high + _LABEL_HEIGHT
            draw.text((x + wide // 2, y + above // 2), name, _INK, _font(), anchor="mm", align="center")
            image.paste(Image.fromarray(frames[number].numpy()), (x + (wide - width) // 2, y + above))
        images.append(image.quantize(64))
    with atomic_write(file) as beside:
        images[0].save(beside, "GIF", save_all=True, append_images=images[1:], duration=round(1000 * seconds), loop=0)


def save_png(image: Image.Image, file: Path) -> None:
    """Write a picture as PNG, whole or not at all."""
    with atomic_write(file) as beside:
        image.save(beside, "PNG")


def movie(frames: Tensor, file: Path, rate: Fraction | int = 10) -> None:
    """Write frames as a video in their own size, through PyAV; the file's ending chooses the format.

    Args:
        frames: (T, C, H, W).
        file: .mp4, .avi, .mkv, .mov, .webm or .gif.
        rate: Frames a second.

    Raises:
        ValueError: If the ending is no video format, or what has been written cannot be.
        ImportError: If PyAV is not installed.
    """
    av = require("av")
    pixels = _to_rgb(frames.float(), side=1)
    # Most players know only video with even sides.
    pixels = torch.cat([pixels, pixels[:, -1:]], 1) if pixels.shape[1] % 2 else pixels
    pixels = torch.cat([pixels, pixels[:, :, -1:]], 2) if pixels.shape[2] % 2 else pixels
    try:
        # An open file rather than a path, since FFmpeg gives a meaning to %, : and * in names.
        with (
            atomic_write(file) as beside,
            beside.open("wb") as handle,
            av.open(handle, "w", format=_FORMATS.get(file.suffix.lower(), file.suffix[1:])) as container,
        ):
            gif = file.suffix.lower() == ".gif"
            codec = "gif" if gif else container.default_video_codec
            stream = container.add_stream(codec, rate=rate)
            stream.height, stream.width = pixels.shape[1:3]
            stream.pix_fmt = "pal8" if gif else "yuv420p"
            for page in pixels.numpy():
                # FFmpeg's own palette is the same eight levels of red for every GIF: gray would turn colourful.
                content, kind = (_paletted(page), "pal8") if gif else (page, "rgb24")
                container.mux(stream.encode(av.VideoFrame.from_ndarray(content, format=kind)))
            container.mux(stream.encode())
    except (av.FFmpegError, ValueError) as error:
        raise ValueError(f"{file} cannot be written as a video: {error}") from error


def _paletted(page: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An (H, W, 3) frame with a palette of its own: (H, W) indices, and (256, 4) of alpha, red, green, blue."""
    image = Image.fromarray(page).quantize(256)
    colours = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    palette = np.full((256, 4), 255, np.uint8)
    palette[: len(colours), 1:] = colours
    return np.array(image), palette


def curves(log: Sequence[dict[str, Any]], file: Path) -> None:
    """Draw a run's loss, validation MSE and learning rate against the clips it has seen.

    Args:
        log: Rows of log.jsonl.
        file: PNG to write.
    """
    import_without_settings("matplotlib")
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, key, title in zip(
        axes, ("loss", "val_mse", "lr"), ("training loss", "validation MSE", "learning rate"), strict=True
    ):
        points = [(row["clips"], row[key]) for row in log if key in row]
        axis.plot(*zip(*points, strict=True), marker=".")
        axis.set_title(title)
        axis.set_xlabel("clips")
        # As many labels as do not run into each other.
        axis.locator_params(axis="x", nbins=4)
        axis.grid(alpha=0.3)
        if key != "lr":
            axis.set_yscale("log")
            # Plain numbers, and between the decades, too.
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
            low, high = axis.get_ylim()
            if high > 10 * low:
                axis.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    with atomic_write(file) as beside:
        figure.savefig(beside, dpi=100, format="png")
