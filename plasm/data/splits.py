"""Folders of splits in other people's trees."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .mnist import Split

_USUAL: dict[Split, str] = {"train": "train(ing)?", "val": "val(id(ation)?)?|dev", "test": "test(ing)?"}
_WHAT = r"([ _-]?(set|data|split|videos?|frames?|images?|clips?|sequences?))?([ _-]?\d{4})?"
_NAMED = 3


@dataclass(frozen=True)
class SplitFolders:
    """The content of folders named after splits.

    Attributes:
        sources: Names of the sources of each split.
        folders: The folders that these lie in.
        unused: Sources that lie beside them.
    """

    sources: Mapping[Split, list[str]]
    folders: Mapping[Split, list[str]]
    unused: list[str]

    def __bool__(self) -> bool:
        return any(self.sources.values())

    def report(self, split: Split, count: int) -> str:
        """What a split took: so many sources; and what lies unused."""
        folders = self.folders[split] or self.folders["train" if split == "val" else split]
        took = f"{split} takes {count} source(s) of {', '.join(folders) or 'no folder'}"
        if not self.unused:
            return took
        named = ", ".join(self.unused[:_NAMED]) + (", ..." if len(self.unused) > _NAMED else "")
        return f"{took}; {len(self.unused)} in no folder of a split are unused: {named}"


def find_splits(names: Iterable[str]) -> SplitFolders:
    """Sort sources by the outermost of their folders that is named after a split, in any case and at any depth.

    Args:
        names: Of the sources, relative to the data set's folder, with "/" between folders.
    """
    sources: dict[Split, list[str]] = {split: [] for split in _USUAL}
    folders: dict[Split, dict[str, None]] = {split: {} for split in _USUAL}
    unused = []
    for name in names:
        parts = name.split("/")
        found = next(((depth, split) for depth, part in enumerate(parts) if (split := _split_of(part))), None)
        if found is None:
            unused.append(name)
            continue
        depth, split = found
        sources[split].append(name)
        folders[split]["/".join(parts[: depth + 1]) + "/"] = None
    return SplitFolders(sources, {split: list(each) for split, each in folders.items()}, unused)


def _split_of(folder: str) -> Split | None:
    return next((s for s, usual in _USUAL.items() if re.fullmatch(f"({usual}){_WHAT}", folder, re.IGNORECASE)), None)
