"""What lies on disk as streams: finding and opening many, and saying which cannot be used."""

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from .seq import SeqStream
from .streams import ArrayStream, FrameStream, ImageStream, array_layout, array_shape
from .video import VideoStream

__all__ = [
    "OnError",
    "find_images",
    "find_sources",
    "find_videos",
    "image_files",
    "natural_key",
    "open_source",
    "open_sources",
]

OnError = Literal["raise", "skip"]

_LOG = logging.getLogger(__name__)
_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
_ARRAYS = {".npy", ".npz"}
_VIDEOS = {
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".m2v", ".ts", ".mts", ".wmv", ".flv", ".ogv",
    ".3gp", ".mjpeg", ".mjpg", ".y4m", ".h264", ".gif", ".seq",
}  # fmt: skip
_NAMED_IN_ERRORS = 5


def natural_key(path: Path | str) -> list[tuple[int, str | int]]:
    """Sort key by which frame 10 comes after frame 9."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def _files(root: Path) -> list[Path]:
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    return [path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")]


def find_images(root: Path) -> list[Path]:
    """All images below a folder."""
    return sorted((path for path in _files(root) if path.suffix.lower() in _IMAGES), key=natural_key)


def find_videos(root: Path) -> list[Path]:
    """All videos below a folder, GIFs and .seq files among them."""
    return sorted((path for path in _files(root) if path.suffix.lower() in _VIDEOS), key=natural_key)


def find_sources(root: Path) -> list[Path]:
    """Everything below a folder that is a stream: videos, GIFs, arrays, and folders with images in them.

    Raises:
        FileNotFoundError: If the folder is not there, or nothing is in it.
    """
    files = _files(root)
    sources = {path for path in files if path.suffix.lower() in _VIDEOS | _ARRAYS}
    sources |= {path.parent for path in files if path.suffix.lower() in _IMAGES}
    if not sources:
        raise FileNotFoundError(f"{root} holds no video, GIF, .npy, .npz or folder of images")
    return sorted(sources, key=natural_key)


def image_files(folder: Path) -> list[Path]:
    """The images of a folder, in natural order."""
    return sorted((path for path in folder.iterdir() if path.suffix.lower() in _IMAGES), key=natural_key)


def open_source(path: Path, channels: int) -> list[FrameStream]:
    """Open a video, GIF, image, folder of images or array file; an array may hold several clips.

    Args:
        path: One of those.
        channels: C wanted, for arrays that could be read in two ways.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it cannot be read.
    """
    if path.is_dir():
        return [ImageStream(image_files(path), str(path))]
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix.lower() in _ARRAYS:
        layout = array_layout(path, channels)
        return [ArrayStream(path, layout, clip) for clip in range(array_shape(path)[0][0] if layout[0] == "b" else 1)]
    return [SeqStream(path) if path.suffix.lower() == ".seq" else VideoStream(path)]


def open_sources(
    paths: Iterable[Path], open_one: Callable[[Path], Sequence[FrameStream]], on_error: OnError
) -> list[FrameStream]:
    """Open many sources, and report all that cannot be read at once.

    Args:
        paths: What to open.
        open_one: Opens one of them.
        on_error: "raise" if a single one cannot be read, or "skip" those and log how many and which.

    Raises:
        ValueError: If some cannot be read and ``on_error`` is "raise", or none can.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error is raise or skip, got {on_error!r}")
    streams: list[FrameStream] = []
    reasons: list[str] = []
    paths = list(paths)
    for path in paths:
        try:
            streams += open_one(path)
        except (ValueError, OSError) as error:
            reasons.append(str(error) if str(path) in str(error) else f"{path}: {error}")
    if reasons:
        named = "; ".join(reasons[:_NAMED_IN_ERRORS]) + ("; ..." if len(reasons) > _NAMED_IN_ERRORS else "")
        message = f"{len(reasons)} of {len(paths)} sources cannot be used: {named}"
        if on_error == "raise" or not streams:
            raise ValueError(message + ("" if on_error == "skip" else ". on_error=skip leaves them out"))
        _LOG.warning("%s", message)
    return streams
