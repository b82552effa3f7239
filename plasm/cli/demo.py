"""The command that serves the page."""

import os
import sys
import tempfile
import webbrowser
from pathlib import Path

import click

from plasm.demo import DemoServer, PageModel, check_free, copy_site, packaged_models, site_files
from plasm.devices import clear_failures
from plasm.models import is_here


@click.command()
@click.option(
    "--weights",
    "sources",
    multiple=True,
    metavar="WEIGHTS",
    help="Run, folder, hf-hub:OWNER/NAME, published name, .safetensors or .onnx file; may be given again, for a switch "
    "between them.  [default: those that ship]",
)
@click.option(
    "--trust", is_flag=True, help="Take .onnx files that were not exported on this machine: they are programs."
)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="Of 127.0.0.1; 0 for a free one.")
@click.option("--browser/--no-browser", default=True, help="Open the page in a browser, where there is one.")
@click.option("--out", type=Path, help="Write the page into this folder, for any web server, and serve nothing.")
def demo(sources: tuple[str, ...], trust: bool, port: int, browser: bool, out: Path | None) -> None:
    """Throw digits in a browser and see what a model forecasts, without a network.

    Weights other than those that ship are exported first, which needs plasm-video[onnx].
    """
    if out is not None:
        # An export takes a while.
        check_free(out)
    with tempfile.TemporaryDirectory(prefix="plasm-demo-") as folder:
        models: list[PageModel] = []
        for source in dict.fromkeys(sources):
            model = _page_model(source, Path(folder), trust, models)
            if model not in models:
                models.append(model)
        files = site_files(models, Path(folder))
        if out is not None:
            copy_site(files, out)
            click.echo(f"{out}/index.html, with {len(files) - 1} more files")
            return
        try:
            server = DemoServer(files, port)
        except OSError as error:
            raise OSError(
                f"port {port} of 127.0.0.1 cannot be had ({error.strerror}): give --port another, or 0"
            ) from error
        with server:
            click.echo(f"{server.url}  (Ctrl-C ends it)")
            if browser and _has_screen():
                webbrowser.open(server.url)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                click.echo()


def _has_screen() -> bool:
    """Whether a browser can show itself: one that runs in the terminal would take it."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _page_model(source: str, folder: Path, trust: bool, others: list[PageModel]) -> PageModel:
    """A model that ships, or one exported into the folder."""
    for model in packaged_models():
        if not is_here(source) and source in (model.name, model.name.partition(".")[0]):
            return model
    # What it needs is an extra.
    from plasm.demo.export import page_model

    with clear_failures("a smaller model takes less"):
        model = page_model(source, folder, trust, [other.name for other in (*packaged_models(), *others)])
    click.echo(f"{source}: exported, {model.size / 1e6:.1f} MB")
    return model
