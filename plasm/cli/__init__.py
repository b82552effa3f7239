"""The ``plasm`` command."""

import difflib
import fnmatch
import importlib.util
import logging
import os
import re
import sys
from typing import Any

try:
    import click

    for _name in ("matplotlib", "skimage", "tomli_w"):
        # Found, not imported: few commands draw, and matplotlib is slow to start.
        if importlib.util.find_spec(_name) is None:
            raise ImportError(f"No module named {_name!r}")
except ImportError as error:
    raise SystemExit(f"the command needs more than the library ({error}): pip install 'plasm-video[cli]'") from error

from plasm._version import __version__
from plasm.distributed import LostProcessError
from plasm.files import shown
from plasm.models import list_models, summarize
from plasm.training import RunInterruptedError
from plasm.weights import WeightsNotFoundError

from .benchmark import benchmark
from .data import data_command
from .demo import demo
from .export import export
from .options import Group
from .predict import predict
from .training import evaluate, pretrain, train
from .weights import convert, print_weights, push

__all__ = ["main"]

_USER_ERRORS = (
    ValueError,
    OSError,
    ImportError,
    FloatingPointError,
    MemoryError,
    LostProcessError,
    WeightsNotFoundError,
)


# What a file says may be in a message: it is not to steer the terminal, nor to fill it.
_LONGEST_MESSAGE = 20_000


class _Group(Group):
    """Turns what a user can mend into one clear line."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Python processes that this one starts, of data loaders say, are not to import what lies in the folder either.
        os.environ["PYTHONSAFEPATH"] = "1"
        return super().__call__(*args, **kwargs)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Refuse empty arguments, of a shell's variable that is not set say: as a path they are the current folder."""
        # A shell that completes a command asks, too, and shows what is raised.
        for before, text in [] if ctx.resilient_parsing else zip(["", *args], args, strict=False):
            if not text or re.fullmatch(r"--[a-z-]+=", text):
                name = text.removesuffix("=") or (before if before.startswith("-") else "an argument")
                raise ValueError(f"{name} is empty: give it, or leave it out")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RunInterruptedError as error:
            click.echo(str(error), err=True)
            sys.exit(128 + error.signal)
        except BrokenPipeError:
            # Whoever reads has seen enough, `| head` say: click ends without a word.
            raise
        except _USER_ERRORS as error:
            raise click.ClickException(shown(_said(error), _LONGEST_MESSAGE, "\n") or "out of memory") from error


def _said(error: BaseException) -> str:
    """What an error says; of one of the system, which file it is about, and without its number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record), _LONGEST_MESSAGE, "\n")


@click.group(cls=_Group, context_settings={"show_default": True})
@click.version_option(__version__, prog_name="plasm")
def main() -> None:
    """Video prediction: list models, predict frames, train, evaluate and publish."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("plasm").setLevel(logging.INFO)


@main.command(name="list")
@click.argument("pattern", default="*")
@click.option(
    "--weights", "of_weights", is_flag=True, help="List the models' published weights instead, with all there is."
)
def list_command(pattern: str, of_weights: bool) -> None:
    """List models, all or those of a PATTERN such as "simvp*": parameters, MACs of a clip, shapes, weights.

    Shapes are (T, C, H, W).
    """
    if of_weights:
        print_weights(pattern)
        return
    names = fnmatch.filter(list_models(), pattern)
    if not names:
        near = difflib.get_close_matches(pattern.lower(), list_models(), n=3, cutoff=0)
        raise ValueError(f"no model is called {pattern!r}; do you mean {', '.join(near)}? `plasm list` names all")
    width = max(map(len, names)) + 2
    click.echo(f"{'model':<{width}}{'parameters':>12}{'MACs':>15}  {'input':<19}{'output':<19}weights")
    for name in names:
        summary = summarize(name)
        click.echo(
            f"{name:<{width}}{summary.parameters / 1e6:>10.2f} M{summary.macs / 1e9:>13.2f} G  "
            f"{summary.input_shape!s:<19}{summary.output_shape!s:<19}{', '.join(summary.tags) or '-'}"
        )


for command in (benchmark, convert, data_command, demo, evaluate, export, predict, pretrain, push, train):
    main.add_command(command)
