"""Check the documentation.

Of the pages: links lead somewhere, Python examples run, commands and their options exist, drawings are what the program
draws, and no number that the code or the manifest knows is typed by hand.

Of the built site: every link, image and anchor is there, and nothing is asked of another host.

Usage: python docs/check.py, and, after ``mkdocs build``, python docs/check.py --site site
"""

import argparse
import os
import re
import shlex
import sys
import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import figures
import house
import notebooks
import tables
from markdown.extensions.toc import slugify

from plasm import weights
from plasm.cli import main as plasm

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
# Pages that the site makes: what a link may lead to though no such file is written.
MADE = re.compile(
    r"^(models|reference|notebooks|images/gallery)/|^images/benchmark\.png$|^(changelog|contribute|security)\.md$"
)


def blocks(text: str, language: str) -> list[str]:
    """Code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@cache
def anchors(page: Path) -> set[str]:
    """What a link may name in a page: its headings."""
    found: set[str] = set()
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        slug = slugify(re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", heading), "-")
        found.add(next(name for n in range(len(found) + 1) if (name := f"{slug}_{n}" if n else slug) not in found))
    return found


def broken_links(page: Path) -> Iterator[str]:
    """Relative links and images whose file, heading or name of Python is not there."""
    for target in re.findall(r"\]\(([^) ]+)\)", page.read_text(encoding="utf-8")):
        if ":" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        made = file.is_relative_to(DOCS) and bool(MADE.match(file.relative_to(DOCS).as_posix()))
        if not file.exists() and not made:
            yield f"{page.name}: no file {name}"
        elif anchor and file.suffix == ".md" and not made and anchor not in anchors(file):
            yield f"{page.name}: no heading {anchor} in {file.name}"


@contextmanager
def working_in(folder: str) -> Iterator[None]:
    """A context with this folder as the current one. Python 3.11 has ``contextlib.chdir``."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def conflicts(page: Path) -> Iterator[str]:
    """Lines that a merge left."""
    for line in re.findall(r"^(?:<{7} .*|={7}|>{7} .*)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        yield f"{page.name}: {line!r} is left of a merge"


def failing_examples(page: Path) -> Iterator[str]:
    """Python blocks that raise, run one after the other in a folder of their own, since some write files."""
    with tempfile.TemporaryDirectory() as folder, working_in(folder):
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


@cache
def measured_numbers() -> dict[str, str]:
    """Metrics of the published weights as a page would print them, and the weights."""
    return {
        f"{value:.4f}" if "ssim" in metric else f"{value:.2f}": row.name
        for row in weights.entries()
        for metric, value in row.metrics.items()
    }


def typed_numbers(page: Path) -> Iterator[str]:
    """Numbers that should come from a table made from the data: metrics, and sizes in a line that names the model."""
    if page.name == "CHANGELOG.md":
        return
    text = page.read_text(encoding="utf-8")
    # What a program printed may have any number.
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for number, name in measured_numbers().items():
        if re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", prose):
            yield f"{page.name}: {number} is typed by hand; use <!-- table: weights --> ({name})"
    models = {f"`{name}`": name for names in tables.families().values() for name in names}
    for line in text.splitlines():
        for number in re.findall(r"(?<![\d.])\d+\.\d+ [MG]\b", line):
            for name in (models[code] for code in re.findall(r"`\w+`", line) if code in models):
                summary = tables.summary(name)
                if number in (f"{summary.parameters / 1e6:.2f} M", f"{summary.macs / 1e9:.2f} G"):
                    yield f"{page.name}: {number} is typed by hand; use <!-- table: models --> ({name})"


def site_problems(site: Path) -> Iterator[str]:
    """Links, images and anchors of the built site that lead nowhere, and anything that another host is asked for."""
    pages = {file: file.read_text(encoding="utf-8") for file in sorted(site.rglob("*.html"))}
    ids = {file: set(re.findall(r'\b(?:id|name)="?([^" >]+)', text)) for file, text in pages.items()}
    for file, text in pages.items():
        name = file.relative_to(site)
        for tag, target in set(re.findall(r"<(\w+)\b[^>]*?\b(?:href|src|srcset)=\"?([^\" >]+)", text)):
            address = urlsplit(target)
            if address.scheme in ("http", "https") or address.netloc:
                if tag != "a":
                    yield f"{name}: <{tag}> asks another host for {target}"
                continue
            if address.scheme or file.name == "404.html":
                continue
            goal = (file.parent / unquote(address.path)).resolve() if address.path else file
            goal = goal / "index.html" if goal.is_dir() else goal
            if not goal.exists():
                yield f"{name}: {target} is not there"
            elif address.fragment and goal in ids and unquote(address.fragment) not in ids[goal] | {"__"}:
                yield f"{name}: no anchor {target}"
    for style in site.rglob("*.css"):
        for target in re.findall(r"(?:url\(|@import\s+)[\"']?(https?:[^\"')]+)", style.read_text(encoding="utf-8")):
            yield f"{style.relative_to(site)}: asks another host for {target}"


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    parser = argparse.ArgumentParser(description="Check the documentation.")
    parser.add_argument("--site", type=Path, help="Check this built site in place of the pages.")
    site = parser.parse_args().site
    if site:
        problems, checked = list(site_problems(site.resolve())), f"{len(list(site.rglob('*.html')))} pages of the site"
    else:
        checks = (broken_links, conflicts, failing_examples, unknown_commands, typed_numbers)
        problems = [problem for page in PAGES for check in checks for problem in check(page)]
        problems += [f"{name} is not what docs/figures.py draws: run it" for name in figures.stale()]
        problems += ["house.svg is not what docs/house.py draws: run it"] * house.stale()
        problems += [
            f"the outputs kept of {name} are of other cells: docs/notebooks.py --write" for name in notebooks.stale()
        ]
        checked = f"{len(PAGES)} pages"
    print("\n".join(problems) or f"{checked} checked")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
