"""Check the documentation.

Links lead somewhere, Python examples run, commands and their options exist, the table of weights is the manifest's.

Usage: python docs/check.py
"""

import re
import shlex
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import click

from plasm import weights
from plasm.cli import main as plasm
from plasm.weights.manifest import replace_table

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str, language: str) -> list[str]:
    """Code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def broken_links(page: Path) -> Iterator[str]:
    """Relative links and images whose file is not there."""
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        if not (page.parent / target).exists():
            yield f"{page.name}: no file {target}"


def failing_examples(page: Path) -> Iterator[str]:
    """Python blocks that raise."""
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        # A module, as the reader would make it: timm looks up that of a constructor.
        module = sys.modules["example"] = types.ModuleType("example")
        try:
            exec(compile(block, page.name, "exec"), module.__dict__)
        except Exception as error:
            yield f"{page.name}: {error!r} in\n{block}"


def unknown_commands(page: Path) -> Iterator[str]:
    """Commands in blocks or `code` that name a command or an option of plasm that does not exist."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in blocks(text, "bash") for line in block.splitlines()] + re.findall(
        r"`(plasm [^`]+)`", text
    )
    for line in lines:
        for part in line.split("&&"):
            words = shlex.split(part)
            if not words or words[0] != "plasm" or len(words) == 1 or words[1].startswith("-"):
                continue
            command, words = plasm.commands.get(words[1]), words[2:]
            if isinstance(command, click.Group):
                command, words = command.commands.get(words[0]), words[1:]
            if command is None:
                yield f"{page.name}: no command in {line!r}"
                continue
            known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)} | {"--help"}
            yield from (
                f"{page.name}: no option {word} in {line!r}"
                for word in words
                if word.startswith("--") and word not in known
            )


def stale_table(page: Path) -> Iterator[str]:
    """A table of weights that is not the manifest's."""
    text = page.read_text(encoding="utf-8")
    if text != replace_table(text, weights.entries()):
        wanted = weights.markdown_table(weights.entries())
        yield f"{page.name}: the table of weights is not the manifest's; it should be\n{wanted}"


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    problems = [
        problem
        for page in PAGES
        for check in (broken_links, failing_examples, unknown_commands, stale_table)
        for problem in check(page)
    ]
    print("\n".join(problems) or f"{len(PAGES)} pages checked")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
