"""Files of the Hugging Face Hub, through its own client, which takes corrupted bytes of the right length as they come.

Here every file is hashed after a download and before it is used from the cache, and a damaged one does not stay there.
"""

import errno
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .files import file_sha256, read_model_config
from .manifest import WeightsNotFoundError

_SECONDS = 5.0
_STORAGE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def fetch(
    repo: str,
    file: str,
    revision: str | None = None,
    sha256: str | None = None,
    cache_dir: Path | str | None = None,
) -> Path:
    """Give a file of the Hub from the cache or by download, after its content was checked.

    Args:
        repo: "owner/name".
        file: Its path in the repository.
        revision: Commit, branch or tag; the main branch by default. Of a commit, a cached file is used without asking.
        sha256: What the file must have. Without one it is checked against what the Hub said it has.
        cache_dir: Of the Hub's files; the client's own by default.

    Raises:
        plasm.weights.WeightsNotFoundError: If the Hub has no such repository, revision or file, or shows it not to you.
        ConnectionError: If the Hub does not answer, and the cache has no such file.
        OSError: If the content is not what it should be (it is then removed), or cannot be stored.
    """
    pinned = revision is not None and re.fullmatch("[0-9a-f]{40}", revision)
    if (path := cached_file(repo, file, revision, cache_dir)) is not None:
        if not _is_intact(path, sha256 if pinned else None):
            _discard(path)
        elif pinned:
            return path
    try:
        path, digest = _download(repo, file, revision, cache_dir)
    except ConnectionError:
        if (cached := cached_file(repo, file, revision, cache_dir)) is None:
            raise
        path, digest = cached, None
    check_cached(path, f"{file} of {repo}", sha256 or digest)
    return path


def fetch_config(name: str, cache_dir: Path | str | None = None) -> dict[str, Any]:
    """Give the config.json of a model repository, checked as far as that goes without the model.

    Args:
        name: "owner/name" or "owner/name@revision".
        cache_dir: Of the Hub's files; the client's own by default.

    Raises:
        plasm.weights.WeightsNotFoundError: If the Hub has no such repository or revision, or no config.json in it.
        ConnectionError: If the Hub does not answer, and the cache has no such file.
        OSError: If it came damaged, or cannot be stored.
        ValueError: If it is not the configuration of a model.
    """
    repo, _, revision = name.partition("@")
    try:
        file = fetch(repo, "config.json", revision or None, cache_dir=cache_dir)
    except ConnectionError as error:
        raise ConnectionError(
            f'{error}. Without a network, copy the repository to a folder and load it by the name "local-dir:FOLDER"'
        ) from error
    try:
        return read_model_config(file)
    except ValueError as error:
        raise ValueError(f"config.json of {name}: {error}") from error


def check_cached(path: Path, what: str, digest: str | None = None) -> None:
    """Check the content of a file in the cache, and remove it if it is not what it should be.

    Args:
        path: Of the cache.
        what: What the error calls it.
        digest: What the file must have: sha256 or git's sha1. By default what the Hub said, as far as the cache knows
            it: one without symbolic links, as on some shared disks and on Windows, does not.

    Raises:
        OSError: If the content is not what it should be.
    """
    if not _is_intact(path, digest):
        found = f"{path.stat().st_size} bytes of sha256 {file_sha256(path)}" + (f", not {digest}" if digest else "")
        _discard(path)
        raise OSError(
            f"{what} came damaged ({found}) and was removed from the cache; try again, and if that does not help, tell "
            "its owner"
        )


def cached_file(repo: str, file: str, revision: str | None, cache_dir: Path | str | None = None) -> Path | None:
    """Path of a file in the cache, if it is there."""
    found = huggingface_hub.try_to_load_from_cache(repo, file, cache_dir, revision)
    return Path(found) if isinstance(found, str) else None


def cached_sha256(path: Path) -> str | None:
    """The sha256 that the Hub said a file in its cache has, by which large ones are named there."""
    name = path.readlink().name if path.is_symlink() else ""
    return name if re.fullmatch("[0-9a-f]{64}", name) else None


def push(folder: Path, repo: str, private: bool = False) -> tuple[str, str]:
    """Upload a folder as a model repository, made if it is not there.

    Returns:
        The address and the revision of what was uploaded.

    Raises:
        ConnectionError: If the Hub does not answer.
        PermissionError: If there is no token.
        OSError: If it refuses.
    """
    if huggingface_hub.get_token() is None:
        raise PermissionError("the Hub takes a model only from someone it knows: `hf auth login` first")
    api = huggingface_hub.HfApi(library_name="plasm")
    with _plain_errors(repo):
        name = api.create_repo(repo, private=private, exist_ok=True).repo_id
        commit = api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload a model of plasm")
    return f"{api.endpoint}/{name}", str(commit.oid)


def _download(repo: str, file: str, revision: str | None, cache_dir: Path | str | None) -> tuple[Path, str | None]:
    """The file in the cache, and its digest, by the Hub."""
    with _plain_errors(f"{file} of {repo}" + (f" at {revision}" if revision else "")):
        # The client would ask again and again, for minutes; this asks once.
        seen = huggingface_hub.get_hf_file_metadata(
            huggingface_hub.hf_hub_url(repo, file, revision=revision), timeout=_SECONDS
        )
        try:
            path = Path(
                huggingface_hub.hf_hub_download(
                    repo, file, revision=revision, cache_dir=cache_dir, library_name="plasm"
                )
            )
            # A branch may have moved on in between.
            return path, seen.etag if seen.commit_hash in path.parts else None
        except OSError as error:
            if error.errno not in _STORAGE:
                raise
            raise OSError(
                error.errno,
                f"{file} of {repo} cannot be stored in {cache_dir or constants.HF_HUB_CACHE}: {error.strerror}; make "
                "room, or name another folder in the environment variable HF_HOME",
            ) from error


@contextmanager
def _plain_errors(what: str) -> Iterator[None]:
    """Turn the client's errors into ours. Those of the network are of its HTTP library, which changed with time."""
    try:
        yield
    except HFValidationError:
        raise
    except LocalEntryNotFoundError as error:
        raise ConnectionError(f"{what}: {error}") from error
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        raise WeightsNotFoundError(
            f"the Hub has no {what}, or shows it to others only (then `hf auth login` helps): "
            f"{str(error).splitlines()[0]}"
        ) from error
    except HfHubHTTPError as error:
        if error.response.status_code >= 500 or error.response.status_code == 429:
            raise ConnectionError(f"{what}: {constants.ENDPOINT} has no answer now: {error}") from error
        raise OSError(f"{what}: the Hub refused: {error}") from error
    except OSError as error:
        # requests' errors of the network are OSErrors, too, without a number.
        if error.errno is not None:
            raise
        raise ConnectionError(f"{what}: no answer from {constants.ENDPOINT}: {error}") from error
    except Exception as error:
        raise ConnectionError(f"{what}: no answer from {constants.ENDPOINT}: {error!r}") from error


def _is_intact(path: Path, digest: str | None) -> bool:
    if digest is None and path.is_symlink():
        # The cache names content by what the Hub said of it: sha256 of a large file, git's sha1 of a small one.
        digest = path.readlink().name
    if re.fullmatch("[0-9a-f]{64}", digest or ""):
        return file_sha256(path) == digest
    if re.fullmatch("[0-9a-f]{40}", digest or ""):
        content = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == digest
    return True


def _discard(path: Path) -> None:
    """Remove a damaged file from the cache: the link to it, and what it links to."""
    try:
        while path.is_symlink():
            target = path.parent / path.readlink()
            path.unlink()
            path = target
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(f"{path} in the cache is damaged and cannot be removed ({error.strerror}): remove it") from error
