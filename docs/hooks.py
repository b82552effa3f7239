"""mkdocs' hooks: pages that come from the code, and links from pages into the code.

* One page a model family, a package of the reference, a notebook and a source file, with the site's navigation.
* ``<!-- table: NAME ARGUMENT -->`` in a page becomes the table of that name of ``docs/tables.py``.
* A link to ``../plasm/FILE.py#NAME`` leads to the line of NAME in the source pages.
* Mathematics becomes MathML, which browsers draw by themselves; a drawing of ``images/paper`` becomes part of its page.
"""

import ast
import html
import re
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

sys.path.insert(0, str(Path(__file__).parent))

import gallery
import notebooks
import tables

ROOT = Path(__file__).parents[1]
PACKAGES = ("plasm", "plasm.layers", "plasm.models", "plasm.tasks", "plasm.weights", "plasm.data", "plasm.data.radar",
            "plasm.training", "plasm.runs", "plasm.evaluation", "plasm.prediction", "plasm.rain", "plasm.benchmark",
            "plasm.pictures", "plasm.exporting", "plasm.cpu", "plasm.devices", "plasm.distributed", "plasm.config",
            "plasm.files", "plasm.testing")  # fmt: skip
SOURCES = ("plasm", "benchmarks", "tools", "docs")
# Files of the repository that are pages of the site.
ROOT_PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contribute.md", "SECURITY.md": "security.md",
              "RELEASING.md": "releasing.md", "CODE_OF_CONDUCT.md": "conduct.md"}  # fmt: skip
# Pages that the search puts first.
ANSWERS = ("training.md", "evaluation.md", "own.md", "paper.md", "videos.md", "faq.md")
NO_SEARCH = "---\nsearch:\n  exclude: true\n---\n"


def source_files() -> list[Path]:
    """Every file that has a source page, relative to the repository."""
    files = [file for folder in SOURCES for file in sorted((ROOT / folder).rglob("*.py"))]
    return [file.relative_to(ROOT) for file in files if "__pycache__" not in file.parts]


@cache
def lines_of(file: Path) -> dict[str, int]:
    """Line of every class, function, method and assignment of a source file, by name: "Class.method", "function"."""
    found: dict[str, int] = {}

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                found.setdefault(prefix + node.name, node.lineno)
                if isinstance(node, ast.ClassDef):
                    visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                found.setdefault(prefix + ast.unparse(target), node.lineno)

    visit(ast.parse((ROOT / file).read_text(encoding="utf-8")).body, "")
    return found


def public_names(package: str) -> list[str]:
    """What a package exports."""
    return [name for name in import_module(package).__all__ if not name.startswith("__")]


def reference_page(package: str) -> str:
    """A page of the reference: what there is, then each name."""
    module = import_module(package)
    names = [name for name in public_names(package) if not isinstance(getattr(module, name), type(sys))]
    rows = [f"| [`{name}`][{package}.{name}] | {tables.first_line(getattr(module, name))} |" for name in names]
    blocks = [f"::: {package}.{name}" for name in names]
    summary = (module.__doc__ or "").strip().replace("``", "`")
    return "\n\n".join([f"# {package}", summary, "\n".join(["| name | what |", "|---|---|", *rows]), *blocks, ""])


def generated_pages() -> dict[str, str]:
    """Text of every page that is not a file of this folder, by its name."""
    here = Path(__file__).parent
    pages = {f"models/{family}.md": tables.family_page(family) for family in tables.families()}
    pages = {name: text for name, text in pages.items() if not (here / name).exists()}
    pages |= {f"reference/{package}.md": reference_page(package) for package in PACKAGES}
    pages |= {f"notebooks/{name}.md": notebooks.page(name) for name in notebooks.names()}
    for file, name in ROOT_PAGES.items():
        pages[name] = (ROOT / file).read_text(encoding="utf-8")
    for path in source_files():
        pages[f"source/{path}.md"] = f"{NO_SEARCH}# {path}\n"
    return pages


def _expand(nav: Any, names: list[str], named: set[str]) -> Any:
    """``folder/*`` in the navigation: every page of the folder that is not named by itself."""
    if isinstance(nav, list):
        return [
            each
            for item in nav
            for each in (_expand(item, names, named) if _is_pattern(item) else [_expand(item, names, named)])
        ]
    if isinstance(nav, dict):
        return {title: _expand(item, names, named) for title, item in nav.items()}
    if _is_pattern(nav):
        folder = nav.removesuffix("*")
        return [name for name in names if name.startswith(folder) and name not in named]
    return nav


def _named(nav: Any) -> set[str]:
    """Pages that the navigation names by themselves."""
    if isinstance(nav, list | dict):
        return {name for item in (nav.values() if isinstance(nav, dict) else nav) for name in _named(item)}
    return {nav}


def _is_pattern(item: Any) -> bool:
    return isinstance(item, str) and item.endswith("/*")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the folders of the navigation."""
    here = Path(__file__).parent
    written = {str(file.relative_to(here)) for file in here.rglob("*.md")}
    names = sorted(written | set(generated_pages()), key=_order)
    config.nav = _expand(config.nav, names, _named(config.nav))
    return config


def _order(name: str) -> tuple[int, str]:
    """The reference in the order of PACKAGES, all else by name, and this project's own family first."""
    order = [f"reference/{package}.md" for package in PACKAGES] + ["models/plasm.md"]
    return (order.index(name) if name in order else len(order), name)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what comes from the code."""
    for name, text in generated_pages().items():
        file = File.generated(config, name, content=text)
        if name.startswith(("source/", "security", "releasing", "conduct")):
            file.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(file)
    for name in notebooks.names():
        files.append(File.generated(config, f"notebooks/{name}.ipynb", content=notebooks.ipynb(name)))
    for table in sorted((ROOT / "plasm").rglob("*.csv")):
        name = f"source/{table.relative_to(ROOT).as_posix()}"
        files.append(File.generated(config, name, content=table.read_text(encoding="utf-8")))
    for name, picture in gallery.pictures().items():
        files.append(File.generated(config, f"images/gallery/{name}", content=picture))
    files.append(File.generated(config, "images/benchmark.png", content=tables.benchmark_picture()))
    return files


def _code_link(match: re.Match[str]) -> str:
    """A link to a source file as the address that ``on_page_content`` completes."""
    path, name = match["path"], match["name"]
    if not (ROOT / path).is_file():
        raise ValueError(f"a page links to {path}, which does not exist")
    if not name:
        return f"](source:{path})"
    if name not in lines_of(Path(path)):
        raise ValueError(f"a page links to {name} of {path}, which has no such name")
    return f"](source:{path}#L-{lines_of(Path(path))[name]})"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put in the tables, and turn links to other files of the repository into links within the site."""
    name = page.file.src_uri
    if name.startswith("source/"):
        return markdown
    # A question is answered by a page of prose first.
    page.meta.setdefault("search", {"boost": 0.5 if name.startswith("reference/") else 1 + 2 * (name in ANSWERS)})
    if name.startswith("models/") and (family := Path(name).stem) in tables.families():
        markdown = tables.with_family_tables(markdown, family)
    markdown = tables.fill(markdown).replace("<!-- gallery -->", gallery.sections())
    markdown = markdown.replace("<!-- hero -->", gallery.hero())
    markdown = re.sub(
        r"\]\((?:\.\./)*(?P<path>(?:plasm|benchmarks|tools|docs)/[\w/]+\.py)(?:#(?P<name>[\w.]+))?\)",
        _code_link,
        markdown,
    )
    up = "../" * name.count("/")
    markdown = re.sub(r"\]\((?:\.\./)+plasm/([\w/]+\.csv)\)", rf"]({up}source/plasm/\1)", markdown)
    for file, target in ROOT_PAGES.items():
        markdown = re.sub(rf"\]\((?:\.\./)*{re.escape(file)}", f"]({up}{target}", markdown)
    if name in ROOT_PAGES.values():
        markdown = markdown.replace("](docs/", "](")
    return markdown


def _drawing(match: re.Match[str]) -> str:
    """An SVG of ours as part of the page, so that it has the page's colours and its links can be followed."""
    svg = (Path(__file__).parent / "images" / "paper" / match["file"]).read_text(encoding="utf-8")
    svg = re.sub(r"<style>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'href="code:([\w/.]+\.py)#([\w.]+)"', _code_address, svg)
    return f'<div class="drawing" role="img" aria-label="{match["alt"]}">{svg}</div>'


def _code_address(match: re.Match[str]) -> str:
    return f'href="source:{match[1]}#L-{lines_of(Path(match[1]))[match[2]]}"'


def _math(match: re.Match[str]) -> str:
    text = html.unescape(match[2]).strip()
    block = text.startswith(r"\[")
    return convert(text[2:-2], display="block" if block else "inline")


def _whole_words(match: re.Match[str]) -> str:
    """Code whose options do not break after a hyphen; a single word of it does not break in a table."""
    code = re.sub(r"(?<=[\s>])--[a-z][\w-]*", r'<span class="option">\g<0></span>', match[0])
    return re.sub(r"^<code>(?=[^\s<]{1,24}</code>$)", '<code class="word">', code)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Complete links into the source, draw mathematics, take in the drawings, and print source files."""
    if page.file.src_uri.startswith("source/"):
        path = page.file.src_uri.removeprefix("source/").removesuffix(".md")
        formatter = HtmlFormatter(lineanchors="L", anchorlinenos=True, linenos="inline", cssclass="highlight")
        code = highlight((ROOT / path).read_text(encoding="utf-8"), PythonLexer(), formatter)
        return f'{content}<div class="source-page">{code}</div>'
    content = re.sub(r'<img alt="(?P<alt>[^"]*)" src="[./]*images/paper/(?P<file>[\w.]+)"\s*/?>', _drawing, content)
    content = re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', _math, content, flags=re.DOTALL)
    content = re.sub(r"<code>[^<]*</code>", _whole_words, content)
    content = re.sub(r'<div class="language-bash highlight">.*?</div>', _whole_words, content, flags=re.DOTALL)
    return re.sub(
        r'href="source:([\w/.]+)(#L-\d+)?"',
        lambda m: f'href="{get_relative_url(f"source/{m[1]}/", page.url)}{m[2] or ""}"',
        content,
    )
