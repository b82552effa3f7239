"""The page, served on this machine or copied for another server."""

import gzip
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Timer
from typing import Any
from urllib.parse import unquote

from plasm.files import check_writable

from .models import LIST, SITE, PageModel, packaged_models, write_list

# Said here, since what the system's table says of them differs from one machine to the next.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".txt": "text/plain; charset=utf-8",
}

# The first two isolate the page, without which browsers give its threads no shared memory.
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}

Files = Mapping[str, "Path | bytes"]

# What a process that was killed left of a page that it copied.
_UNFINISHED = ".page-"


def site_files(models: Sequence[PageModel] = (), folder: Path = SITE) -> dict[str, Path | bytes]:
    """Every file of the page, by its path there.

    Args:
        models: What it runs, in this order; by default what ships with it.
        folder: Where their files lie.

    Returns:
        For each path, the file on disk or its content.
    """
    shipped = {model.file for model in packaged_models()}
    paths = (path for path in SITE.rglob("*") if path.is_file())
    files: dict[str, Path | bytes] = {path.relative_to(SITE).as_posix(): path for path in paths}
    if models:
        files = {name: path for name, path in files.items() if name not in shipped}
        for model in models:
            made = folder / model.file
            files[model.file] = made if made.is_file() else SITE / model.file
        files[LIST] = write_list(models).encode()
    return files


def check_free(out: Path) -> None:
    """Refuse a folder that the page cannot be written into.

    Raises:
        FileExistsError: If it holds something already.
        OSError: If it cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(not each.name.startswith(_UNFINISHED) for each in out.iterdir())):
        raise FileExistsError(f"{out} is there already: name a new folder, or an empty one")
    check_writable(out)


def copy_site(files: Files, out: Path) -> None:
    """Write the page into a folder, for any web server: all of it, or nothing.

    Raises:
        FileExistsError: If the folder holds something already.
        OSError: If a file cannot be written.
    """
    check_free(out)
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left)
    # In the folder itself, which may be the current one or a mount: neither can be renamed onto.
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=out) as whole:
        for name, content in files.items():
            target = Path(whole, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                target.write_bytes(content)
            else:
                shutil.copyfile(content, target)
        for each in Path(whole).iterdir():
            each.rename(out / each.name)


class DemoServer(ThreadingHTTPServer):
    """Serves the page to browsers of this machine alone, compressed where they take it.

    Args:
        files: From ``site_files``.
        port: 0 for a free one.

    Raises:
        OSError: If the port is taken.
    """

    daemon_threads = True
    # A port that another server has is an error; the standard library would join it, Windows by the second of these.
    allow_reuse_port = False
    allow_reuse_address = os.name != "nt"

    def __init__(self, files: Files, port: int = 0) -> None:
        self.files = dict(files)
        self.compressed = cache(lambda name: gzip.compress(self.content(name), 6, mtime=0))
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://127.0.0.1:{self.server_address[1]}/"

    @property
    def hosts(self) -> list[list[str]]:
        """The values of the header Host that are accepted."""
        port = self.server_address[1]
        return [[f"{name}{end}"] for name in ("127.0.0.1", "localhost") for end in (f":{port}", *[""] * (port == 80))]

    def content(self, name: str) -> bytes:
        """A file of the page.

        Raises:
            KeyError: If it has no such file.
        """
        content = self.files[name]
        return content if isinstance(content, bytes) else content.read_bytes()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of a file, or takes no more of it, is no error."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer
    # Of a browser that says nothing, or takes nothing.
    timeout = 30.0
    protocol_version = "HTTP/1.1"
    server_version = "plasm"
    sys_version = ""

    def handle_one_request(self) -> None:
        """Answer the next request of a browser, if it comes whole in time: a byte now and then is not enough."""
        self._late = Timer(self.timeout, self._hang_up)
        self._late.daemon = True
        self._late.start()
        try:
            super().handle_one_request()
        finally:
            self._late.cancel()

    def parse_request(self) -> bool:
        """Read the header; what takes or answers it has a time of its own."""
        whole = super().parse_request()
        self._late.cancel()
        # No request here has a body: what comes in one would be read as the next request.
        if whole and any(name in self.headers for name in ("Content-Length", "Transfer-Encoding")):
            self.close_connection = True
        return whole

    def _hang_up(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        # Another name that leads here is another page's, which would read what is served to this machine alone.
        if [host.lower() for host in self.headers.get_all("Host", [])] not in self.server.hosts:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return
        name = unquote(self.path.partition("?")[0]).removeprefix("/") or "index.html"
        gzipped = _takes_gzip(",".join(self.headers.get_all("Accept-Encoding", [])))
        try:
            body = self.server.compressed(name) if gzipped else self.server.content(name)
        except (KeyError, OSError):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", TYPES.get(Path(name).suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(len(body)))
        if gzipped:
            self.send_header("Content-Encoding", "gzip")
        for header, value in HEADERS.items():
            self.send_header(header, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the page says what fails."""


def _takes_gzip(accepted: str) -> bool:
    """Whether the header Accept-Encoding takes gzip: by name or by "*", with a weight above 0 (RFC 9110, 12.5.3)."""
    weights = {}
    for part in accepted.split(","):
        coding, *parameters = (each.strip().lower() for each in part.split(";"))
        given = [value for name, _, value in (each.partition("=") for each in parameters) if name.strip() == "q"]
        try:
            weights[coding] = float(given[0]) if given else 1.0
        except ValueError:
            weights[coding] = 0.0
    return weights.get("gzip", weights.get("*", 0.0)) > 0
