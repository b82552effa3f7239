"""Sources on disk as streams: find and open many, and report those that cannot be used."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from .decoding import IMAGE_FORMATS, PAGED, VIDEO_FORMATS, has_pages
from .h5 import h5_streams
from .layouts import NO_OPTIONS, ArrayOptions
from .naming import consecutive_runs, natural_key
from .netcdf import is_packed, netcdf_streams
from .npy import array_streams
from .pages import PageStream, tiff_streams
from .seq import SeqStream
from .streams import FrameStream, ImageStream
from .tiff import is_tiff
from .video import VideoStream

OnError = Literal["raise", "skip"]

_LOG = logging.getLogger(__name__)
_IMAGES = {ending for endings in IMAGE_FORMATS.values() for ending in endings} | {".tif", ".tiff"}
_ARRAYS = {".npy", ".npz"}
_H5 = {".h5", ".hdf5", ".hkl"}
_NETCDF = {".nc", ".nc4", ".cdf", ".netcdf"}
_VIDEOS = {ending for endings in VIDEO_FORMATS.values() for ending in endings} | {".seq"}
_KINDS = (
    f"plasm reads videos ({', '.join(sorted(_VIDEOS))}); images ({', '.join(sorted(_IMAGES))}, and GIFs of one frame) "
    f"and folders of them; and arrays ({', '.join(sorted(_ARRAYS | _H5 | _NETCDF))})"
)
_NAMED_IN_ERRORS = 5


def _files(root: Path) -> list[Path]:
    """Files below a folder and what links there lead to, but for what is hidden: ._1.png, .DS_Store and the like."""
    return sorted((Path(entry.path) for entry in _walk(root) if entry.is_file()), key=natural_key)


def find_folders(root: Path, name: str) -> list[Path]:
    """All folders of a name below a folder, and where links there lead."""
    return sorted(Path(entry.path) for entry in _walk(root) if entry.name == name and entry.is_dir())


def _walk(root: Path) -> Iterator[os.DirEntry[str]]:
    """All that lies below a folder. What links reach twice is given once below each folder of the root."""
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    folders: list[tuple[str, set[str]]] = [(str(root), set())]
    links: list[tuple[str, set[str]]] = []
    while folders or links:
        # Links last, so that a folder that is there itself keeps its own name.
        folder, seen = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    below = {real} if folder == str(root) else seen
                    (links if entry.is_symlink() else folders).append((entry.path, below))
                elif not entry.is_file():
                    _LOG.warning("%s is no regular file%s, and left out", entry.path,
                                 ", but a link to none" if entry.is_symlink() else "")  # fmt: skip
                    continue
                yield entry


def find_images(root: Path) -> list[Path]:
    """All images below a folder."""
    return [path for path in _files(root) if path.suffix.lower() in _IMAGES]


def find_videos(root: Path) -> list[Path]:
    """All videos below a folder, GIFs and .seq files among them."""
    return [path for path in _files(root) if path.suffix.lower() in _VIDEOS]


def find_sources(root: Path) -> list[Path]:
    """Everything below a folder that is a stream: videos, GIFs, arrays, and folders with images in them.

    Where the first GIF, TIFF or WebP of a folder holds several frames, each is a stream of its own, else an image. A
    FileNotFoundError if there is nothing.
    """
    folders: dict[Path, list[Path]] = {}
    for path in _files(root):
        folders.setdefault(path.parent, []).append(path)
    sources: list[Path] = []
    for folder, files in folders.items():
        images = set(_images(files))
        sources += [folder] if images else []
        alone = _VIDEOS | _ARRAYS | _H5 | _NETCDF | PAGED
        sources += [path for path in files if path.suffix.lower() in alone and path not in images]
    if not sources:
        raise FileNotFoundError(f"{root} holds nothing that is read: {_KINDS}")
    return sorted(sources, key=natural_key)


def image_files(folder: Path) -> list[Path]:
    """The images of a folder that are a frame each, in natural order."""
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return _images(sorted(files, key=natural_key))


def image_streams(files: Sequence[Path], name: str, channels: int = 3, fill: float | None = None) -> list[FrameStream]:
    """The images of a folder as a stream, or, where numbers are missing in their names, as one for each part.

    The name is what errors call them; for the rest see ``decode_image``.
    """
    runs = consecutive_runs([file.stem for file in files])
    if len(runs) < 2:
        return [ImageStream(files, name, channels, fill)]
    parts = [files[run.start : run.stop] for run in runs]
    names = [f"{name}, {part[0].name} to {part[-1].name}" for part in parts]
    shown = "; ".join(f"{part[0].name} to {part[-1].name}" for part in parts[:_NAMED_IN_ERRORS])
    _LOG.warning("%s lacks frames: it is read as %d clips, %s%s", name, len(parts), shown,
                 "; ..." if len(parts) > _NAMED_IN_ERRORS else "")  # fmt: skip
    return [ImageStream(part, each, channels, fill) for part, each in zip(parts, names, strict=True)]


def _images(files: Sequence[Path]) -> list[Path]:
    """Those files of a folder that are images; of an ending that may hold several frames, the first file decides."""
    kinds = dict.fromkeys(_IMAGES, True)
    for ending in PAGED:
        first = next((path for path in files if path.suffix.lower() == ending), None)
        kinds[ending] = first is not None and not has_pages(first)
    return [path for path in files if kinds.get(path.suffix.lower(), False)]


def open_source(path: Path, channels: int, options: ArrayOptions = NO_OPTIONS) -> list[FrameStream]:
    """Open a video, GIF, image, folder of images or array file; an array may hold several clips.

    Args:
        path: One of those.
        channels: C wanted, for arrays that could be read in two ways.
        options: Metadata that a file of arrays lacks.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it cannot be read.
    """
    if path.is_dir():
        files = image_files(path)
        if not files:
            read = _IMAGES | _VIDEOS | _ARRAYS | _H5 | _NETCDF
            file = next((file for file in _files(path) if file.suffix.lower() in read), None)
            if file is None:
                raise ValueError(f"{path} holds no frames: no images ({', '.join(sorted(_IMAGES))}) are in it")
            # Of images that are a frame each, their folder is the clip.
            clip = file.parent if image_files(file.parent) else file
            raise ValueError(
                f"{path} holds no images of one clip, but what is a clip by itself: give one, such as {clip}"
            )
        return image_streams(files, str(path), channels, options.fill)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.is_file():
        raise ValueError(f"{path} is a pipe or device, wanted a file or folder")
    ending = path.suffix.lower()
    if ending in _ARRAYS:
        return list(array_streams(path, channels, options))
    if ending in _NETCDF or (ending in _H5 - {".hkl"} and is_packed(path)):
        return list(netcdf_streams(path, channels, options))
    if ending in _H5:
        return list(h5_streams(path, channels, options))
    with path.open("rb") as content:
        if is_tiff(content):
            # Whatever its ending is.
            return list(tiff_streams(path, channels, options))
    if ending == ".seq":
        return [SeqStream(path)]
    if ending in PAGED - {".gif", ".png"} and has_pages(path):
        return [PageStream(path)]
    if ending in _IMAGES and not has_pages(path):
        return [ImageStream([path], str(path), channels, options.fill)]
    try:
        return [VideoStream(path)]
    except ValueError as error:
        if ending in _VIDEOS | _IMAGES:
            raise
        raise ValueError(f"{error}. {_KINDS}") from error


def long_enough(streams: Sequence[FrameStream], span: int) -> list[FrameStream]:
    """Those streams of a source that hold a clip of ``span`` frames; what is left out is logged.

    Raises:
        ValueError: If none does.
    """
    short = [stream for stream in streams if stream.num_frames < span]
    reasons = [f"{stream.name} has {stream.num_frames} frames, too few for a clip of {span}" for stream in short]
    if len(short) == len(streams):
        raise ValueError("; ".join(reasons[:_NAMED_IN_ERRORS]))
    if short:
        _LOG.warning("left out: %s", "; ".join(reasons[:_NAMED_IN_ERRORS]))
    return [stream for stream in streams if stream.num_frames >= span]


def open_sources(
    paths: Iterable[Path], open_one: Callable[[Path], Sequence[FrameStream]], on_error: OnError
) -> list[FrameStream]:
    """Open many sources by ``open_one``, and report all that cannot be read at once.

    Raises:
        ValueError: If some cannot be read and ``on_error`` is "raise", or none can. With "skip" it is logged which.
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
