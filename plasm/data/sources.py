"""What lies on disk as streams: finding and opening many, and saying which cannot be used."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from .decoding import PAGED, has_pages
from .h5 import h5_streams
from .layouts import ArrayOptions
from .naming import natural_key
from .npy import array_streams
from .pages import PageStream
from .seq import SeqStream
from .streams import FrameStream, ImageStream
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
_H5 = {".h5", ".hdf5", ".nc", ".hkl"}
_VIDEOS = {
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".m2v", ".ts", ".mts", ".wmv", ".flv", ".ogv",
    ".3gp", ".mjpeg", ".mjpg", ".y4m", ".h264", ".gif", ".apng", ".seq",
}  # fmt: skip
_KINDS = (
    f"plasm reads videos, GIFs and .seq; images ({', '.join(sorted(_IMAGES))}, and GIFs of one frame) and folders of "
    f"them; and arrays ({', '.join(sorted(_ARRAYS | _H5))})"
)
_NAMED_IN_ERRORS = 5


def _is_data(path: Path, root: Path) -> bool:
    """A file that is not hidden, nor in a hidden folder: systems write ._1.png, .DS_Store and the like."""
    return path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)


def _files(root: Path) -> list[Path]:
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    return sorted((path for path in root.rglob("*") if _is_data(path, root)), key=natural_key)


def find_images(root: Path) -> list[Path]:
    """All images below a folder."""
    return [path for path in _files(root) if path.suffix.lower() in _IMAGES]


def find_videos(root: Path) -> list[Path]:
    """All videos below a folder, GIFs and .seq files among them."""
    return [path for path in _files(root) if path.suffix.lower() in _VIDEOS]


def find_sources(root: Path) -> list[Path]:
    """Everything below a folder that is a stream: videos, GIFs, arrays, and folders with images in them.

    Where the first GIF, TIFF or WebP of a folder holds several frames, each is a stream of its own, else an image.

    Raises:
        FileNotFoundError: If the folder is not there, or nothing is in it.
    """
    folders: dict[Path, list[Path]] = {}
    for path in _files(root):
        folders.setdefault(path.parent, []).append(path)
    sources: list[Path] = []
    for folder, files in folders.items():
        images = _images(files)
        sources += [folder] if images else []
        alone = _VIDEOS | _ARRAYS | _H5 | PAGED
        sources += [path for path in files if path.suffix.lower() in alone and path not in images]
    if not sources:
        raise FileNotFoundError(f"{root} holds nothing that is read: {_KINDS}")
    return sorted(sources, key=natural_key)


def image_files(folder: Path) -> list[Path]:
    """The images of a folder that are a frame each, in natural order."""
    return _images(sorted((path for path in folder.iterdir() if _is_data(path, folder)), key=natural_key))


def _images(files: Sequence[Path]) -> list[Path]:
    """Those files of a folder that are images; of an ending that may hold several frames, the first file decides."""
    kinds = dict.fromkeys(_IMAGES, True)
    for ending in PAGED:
        first = next((path for path in files if path.suffix.lower() == ending), None)
        kinds[ending] = first is not None and not has_pages(first)
    return [path for path in files if kinds.get(path.suffix.lower(), False)]


def open_source(path: Path, channels: int, options: ArrayOptions | None = None) -> list[FrameStream]:
    """Open a video, GIF, image, folder of images or array file; an array may hold several clips.

    Args:
        path: One of those.
        channels: C wanted, for arrays that could be read in two ways.
        options: What a file of arrays does not say itself.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it cannot be read.
    """
    if path.is_dir():
        files = image_files(path)
        if not files:
            raise ValueError(f"{path} holds no frames: no images ({', '.join(sorted(_IMAGES))}) are in it")
        return [ImageStream(files, str(path))]
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.is_file():
        raise ValueError(f"{path} is a pipe or device, wanted a file or folder")
    ending = path.suffix.lower()
    if ending in _ARRAYS:
        return list(array_streams(path, channels, options))
    if ending in _H5:
        return list(h5_streams(path, channels, options))
    if ending == ".seq":
        return [SeqStream(path)]
    if ending in PAGED - {".gif"} and has_pages(path):
        return [PageStream(path)]
    if ending in _IMAGES - {".png"}:
        return [ImageStream([path], str(path))]
    try:
        # A PNG may be an animation.
        return [VideoStream(path)]
    except ValueError as error:
        raise ValueError(str(error) if ending in _VIDEOS | _IMAGES else f"{error}. {_KINDS}") from error


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
