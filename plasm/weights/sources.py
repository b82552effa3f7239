"""Sources of published weights: a folder that the user named, the package, the Hub's cache, the Hub."""

import os
from pathlib import Path

from . import hub, manifest
from .files import file_sha256
from .manifest import Entry

ENVIRONMENT = "PLASM_WEIGHTS"
_added: list[Path] = []


def add_source(folder: Path | str) -> None:
    """Look for published weights in a folder, before the package and the Hub: a shared disk, a site without network.

    Its files are named ``MODEL.TAG.safetensors``. The folders of the environment variable PLASM_WEIGHTS, separated as
    in PATH, come after those added here.

    Raises:
        NotADirectoryError: If there is no such folder.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    if folder not in _added:
        _added.append(folder)


def sources() -> list[Path]:
    """The folders to look in, in order."""
    return [*_added, *(Path(name) for name in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if name)]


def find(model: str, tag: str | None = None, cache_dir: Path | str | None = None) -> Path:
    """Give the file of a published weight, after its size and sha256 were checked.

    Args:
        model: Name of the constructor.
        tag: Which weight; the model's default one by default.
        cache_dir: Of the Hub's files; the client's own by default.

    Raises:
        plasm.weights.WeightsNotFoundError: If no such weight is published, or the Hub has it no more.
        ConnectionError: If it has to come from the Hub, which does not answer.
        OSError: If the file is not the one the manifest describes, or cannot be stored.
    """
    row = manifest.entry(model, tag)
    for folder in sources():
        if (file := folder / row.local_name).is_file():
            return _verified(file, row, "copy it there anew, or take it away")
    if row.repo is None:
        return _verified(manifest.FOLDER / row.file, row, "install plasm-video anew")
    try:
        return hub.fetch(row.repo, row.file, row.revision, row.sha256, cache_dir)
    except ConnectionError as error:
        looked = ", ".join(map(str, sources())) or f"none named: set {ENVIRONMENT}"
        raise ConnectionError(
            f"{error}. Without a network, put a copy named {row.local_name} (sha256 {row.sha256}) into a folder that "
            f"{ENVIRONMENT} or plasm.weights.add_source names (looked in: {looked}), or load a folder of your own by "
            'the name "local-dir:FOLDER"'
        ) from error


def _verified(file: Path, row: Entry, remedy: str) -> Path:
    size = file.stat().st_size
    # The size first: it is at hand, and a truncated file need not be read.
    if size != row.size or file_sha256(file) != row.sha256:
        raise OSError(
            f"{file} is damaged: {size} bytes, where {row.size} with sha256 {row.sha256} were published; {remedy}"
        )
    return file
