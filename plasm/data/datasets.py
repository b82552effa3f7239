"""Data sets by name: one registry, open to users' own."""

import inspect
import numbers
from collections.abc import Callable, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from torch import Tensor
from torch.utils.data import Dataset

from plasm.files import import_named

from .mnist import Split

Builder = TypeVar("Builder", bound=Callable[..., Dataset[Tensor]])

_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_DATASETS: dict[str, Callable[..., Dataset[Tensor]]] = {}
# Clips of the splits in the paper, and the lengths of clip that its numbers are for.
_PUBLISHED: dict[str, tuple[dict[str, int], Sequence[int]]] = {}


def register_dataset(
    name: str, published: dict[str, int] | None = None, published_frames: Sequence[int] = ()
) -> Callable[[Builder], Builder]:
    """Decorate a function that makes a data set, so that ``create_dataset`` and the commands know it by name.

    The function takes (root: Path, split, *, num_frames), where they matter also ``num_clips`` and ``seed``, and any
    options of its own as keywords with defaults; it returns clips of (num_frames, C, H, W), float32 in [0, 1].

    Args:
        name: Its name, without a colon.
        published: Clips of the splits in the paper, where it says; its training set is ours and our validation set.
        published_frames: T + T' of those clips; several where the paper says several.

    Raises:
        ValueError: If the name is taken, or holds a colon.
    """
    if name in _DATASETS or ":" in name:
        raise ValueError(f"the data set name {name!r} is taken already, or holds a colon")

    def register(build: Builder) -> Builder:
        _DATASETS[name] = build
        _PUBLISHED[name] = published or {}, published_frames
        return build

    return register


def list_datasets() -> list[str]:
    """Names for ``create_dataset``."""
    return sorted(_DATASETS)


GIVEN_BY_COMMANDS = ("name", "root", "split", "num_frames")
"""What every command gives ``create_dataset`` itself, by options of its own."""


def create_dataset(
    name: str,
    root: Path,
    split: Literal["train", "val", "test"],
    *,
    num_clips: int = 10_000,
    num_frames: int = 20,
    seed: int = 0,
    **options: Any,
) -> Dataset[Tensor]:
    """Make a data set of clips, (num_frames, C, H, W) each.

    Args:
        name: See ``list_datasets``; or "module:name" for one that importing ``module`` registers.
        root: Folder with its files.
        split: "train", "val" or "test".
        num_clips: Clips an epoch, for data sets that are made rather than read.
        num_frames: T + T'.
        seed: Of the training clips; evaluation clips are always the same.
        options: Of the data set: see its function, or its page in docs/data.

    Raises:
        ValueError: If there is no such data set, split or option, or a file is not what it should be.
        FileNotFoundError: If the files are not there.
        ImportError: If reading them needs a package that is not installed, or there is no such module.
    """
    module, _, short = name.rpartition(":")
    if module:
        import_named(module)
    if short not in _DATASETS:
        raise ValueError(f"no data set is called {short!r}; there are: {', '.join(list_datasets())}")
    if split not in _SPLITS:
        raise ValueError(f"split is one of {', '.join(_SPLITS)}, got {split!r}")
    build = _DATASETS[short]
    parameters = inspect.signature(build).parameters
    common = {"num_clips": num_clips, "num_frames": num_frames, "seed": seed}
    known = set(parameters) - {"root", "split", *common}
    if unknown := sorted(set(options) - known):
        raise ValueError(f"{short} has no option {', '.join(unknown)}; it has: {', '.join(sorted(known)) or 'none'}")
    for name, value in options.items():
        kind, default = parameters[name].annotation, parameters[name].default
        # A default is right, whatever it is annotated as; 1.0 is not the default 1, though it equals it.
        if not _is_of(value, kind) and not (type(value) is type(default) and value == default):
            raise ValueError(f"{short}: {name} is {getattr(kind, '__name__', kind)}, got {value!r}")
    return build(Path(root), split, **{name: common[name] for name in common.keys() & parameters.keys()}, **options)


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type, as far as it is of numbers or a bool; texts are checked in use."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_is_of(value, each) for each in inner)
    if origin is tuple:
        inner = inner[:1] * len(value) if inner[1:] == (...,) and isinstance(value, list | tuple) else inner
        return isinstance(value, list | tuple) and len(value) == len(inner) and all(map(_is_of, value, inner))
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    if kind is bool:
        return not isinstance(value, str) and value in (0, 1)
    return value is None if kind is type(None) else True


def count_clips(name: str, root: Path, *, num_frames: int, **options: Any) -> dict[str, tuple[int, int | None]]:
    """Count the clips of each split, beside the paper's numbers.

    Args:
        name: See ``create_dataset``.
        root: Folder with its files.
        num_frames: T + T'.
        options: Of the data set.

    Returns:
        For each split the number here and the paper's, or None where it gives none for clips of this length.
    """
    counts = {
        split: len(create_dataset(name, root, split, num_frames=num_frames, **options))  # type: ignore[arg-type]
        for split in _SPLITS
    }
    published, frames = _PUBLISHED[name.rpartition(":")[2]]
    return {split: (count, published.get(split) if num_frames in frames else None) for split, count in counts.items()}
