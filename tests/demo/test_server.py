import gzip
import http.client
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from urllib.parse import quote

import pytest

import plasm
from plasm import weights
from plasm.data import SAMPLES, load_digits
from plasm.demo import SITE, DemoServer, PageModel, copy_site, packaged_models, site_files
from plasm.demo.server import _Handler
from plasm.prediction import DEFAULT_MODEL

NOTICE = Path(plasm.__file__).parents[1] / "NOTICE"


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with DemoServer(site_files()) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def get(
    server: DemoServer, path: str, encoding: str = "identity", method: str = "GET", host: str | None = None
) -> tuple[int, dict, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1])
    try:
        connection.request(
            method, path, headers={"Accept-Encoding": encoding, **({} if host is None else {"Host": host})}
        )
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_every_file_comes_isolated_and_with_its_type(server: DemoServer) -> None:
    for name in server.files:
        status, headers, body = get(server, f"/{name}")
        assert status == 200
        assert body == (SITE / name).read_bytes()
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert headers["X-Content-Type-Options"] == "nosniff"
    # Browsers run modules, and compile WebAssembly while it comes, of these types alone.
    for name, kind in (("main.js", "text/javascript"), ("ort/ort.wasm.min.mjs", "text/javascript"),
                       ("ort/ort-wasm-simd-threaded.wasm", "application/wasm")):  # fmt: skip
        assert get(server, f"/{name}", method="HEAD")[1]["Content-Type"].startswith(kind)
    assert get(server, "/")[2] == get(server, "/index.html?anything")[2]


def test_compressed_where_the_browser_takes_it_and_what_a_visit_loads_under_15_mb(server: DemoServer) -> None:
    later = {model.file for model in packaged_models()[1:]}  # when they are chosen
    total = 0
    for name in server.files:
        _, headers, body = get(server, f"/{name}", "gzip, deflate")
        assert headers["Content-Encoding"] == "gzip"
        assert int(headers["Content-Length"]) == len(body)
        assert gzip.decompress(body) == (SITE / name).read_bytes()
        total += 0 if name in later else len(body)
    assert total < 15e6


@pytest.mark.parametrize(
    ("accepted", "gzipped"),
    [
        ("gzip", True), ("GZIP", True), ("br, gzip;q=0.5", True), ("*", True), ("*;q=0.1, br", True),
        ("gzip; q=1.0", True),
        ("gzip;q=0", False), ("gzip; q=0.000, *", False), ("*;q=0", False), ("", False), ("br", False),
        ("xgzip", False), ("gzip;q=no", False), ("gzip;q=nan", False), ("identity, *;q=0", False), ("gzip;Q=0", False),
    ],
)  # fmt: skip
def test_a_browser_says_what_it_takes(server: DemoServer, accepted: str, gzipped: bool) -> None:
    _, headers, body = get(server, "/main.js", accepted)
    assert ("Content-Encoding" in headers) == gzipped
    assert (gzip.decompress(body) if gzipped else body) == (SITE / "main.js").read_bytes()


def test_a_name_beyond_ascii_comes() -> None:
    name = "models/größe.onnx"
    with DemoServer({name: b"a model"}) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        # As browsers ask for it.
        status, _, body = get(server, f"/{quote(name)}")
        server.shutdown()
    assert (status, body) == (200, b"a model")


@pytest.mark.parametrize("path", ["/none.html", "/../server.py", "/%2e%2e/server.py", "//etc/passwd", "/models"])
def test_nothing_else_comes(server: DemoServer, path: str) -> None:
    assert get(server, path)[0] == 404


@pytest.mark.parametrize(
    "host", ["attacker.example", "attacker.example:{port}", "127.0.0.1:1", "127.0.0.1.attacker.example:{port}", ""]
)
def test_another_name_gets_nothing(server: DemoServer, host: str) -> None:
    """A page elsewhere may let its own name lead to this machine (DNS rebinding)."""
    assert get(server, "/", host=host.format(port=server.server_address[1]))[0] == 421
    # Names of hosts are the same in either case (RFC 9110, 4.2.3).
    for name in ("localhost", "LocalHost"):
        assert get(server, "/", host=f"{name}:{server.server_address[1]}")[0] == 200


def test_a_browser_that_says_nothing_is_not_waited_for(server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _Handler.timeout is not None
    monkeypatch.setattr(_Handler, "timeout", 0.1)
    with socket.create_connection(("127.0.0.1", server.server_address[1])) as connection:
        connection.sendall(b"GET / HT")
        connection.settimeout(20)
        assert connection.recv(100) == b""


def test_a_request_that_comes_byte_by_byte_is_not_waited_for(
    server: DemoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Handler, "timeout", 0.2)

    def whole(connection: socket.socket) -> None:
        for _ in range(500):
            connection.sendall(b"X")
            time.sleep(0.02)

    with (
        socket.create_connection(("127.0.0.1", server.server_address[1])) as connection,
        pytest.raises(OSError, match=r"reset|roken pipe|abort"),
    ):
        whole(connection)
    # Nor is one that takes long to answer hung up on: the time is that of its header.
    monkeypatch.setattr(server, "content", lambda name: time.sleep(0.5) or b"late")
    assert get(server, "/main.js")[2] == b"late"


@pytest.mark.parametrize("header", ["Content-Length: 40", "Transfer-Encoding: chunked"])
def test_a_body_is_no_request(server: DemoServer, header: str) -> None:
    host = f"Host: 127.0.0.1:{server.server_address[1]}"
    request = f"HEAD /main.js HTTP/1.1\r\n{host}\r\n"
    with socket.create_connection(("127.0.0.1", server.server_address[1])) as connection:
        connection.sendall(f"{request}{header}\r\n\r\n{request}\r\n".encode())
        connection.settimeout(20)
        with connection.makefile("rb") as answers:
            assert answers.read().count(b"HTTP/1.1 200 OK") == 1


@pytest.mark.parametrize(
    "request_line",
    [b"GET / HTTP/9.9", b"GET / HTTP/1.-1", b"GET /", b"\x16\x03\x01\0", b"BREW / HTTP/1.1", b"GET http://[/ HTTP/1.1",
     b"GET /" + 70_000 * b"a", b"GET / HTTP/1.1\r\nX: " + 70_000 * b"a", b"GET / HTTP/1.1" + 200 * b"\r\nX: a"],
)  # fmt: skip
def test_what_is_no_request_is_no_crash(
    server: DemoServer, request_line: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", server.server_address[1])) as connection:
        connection.sendall(request_line + b"\r\n\r\n")
        connection.settimeout(20)
        assert b"Error code: " in connection.makefile("rb").read()
    assert get(server, "/")[0] == 200
    assert capfd.readouterr().err == ""


def test_it_listens_on_this_machine_alone(server: DemoServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(OSError, match="in use"):
        DemoServer(site_files(), server.server_address[1])


def test_a_copy_is_whole_and_overwrites_nothing(tmp_path: Path) -> None:
    files = {name: content for name, content in site_files(packaged_models()).items() if not name.endswith(".wasm")}
    copy_site(files, tmp_path / "page")
    for name in files:
        assert (tmp_path / "page" / name).read_bytes() == (SITE / name).read_bytes()
    with pytest.raises(FileExistsError, match="an empty one"):
        copy_site(files, tmp_path / "page")


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    with pytest.raises(FileNotFoundError):
        copy_site({"a/one.js": b"1", "two.js": tmp_path / "none.js"}, tmp_path / "page")
    assert not list((tmp_path / "page").iterdir())
    # Nor does what a killed process left stand in the way.
    (tmp_path / "page" / ".page-killed").mkdir()
    copy_site({"a/one.js": b"1"}, tmp_path / "page")
    assert [file.name for file in (tmp_path / "page").rglob("*")] == ["a", "one.js"]


def test_nothing_on_the_page_comes_from_elsewhere() -> None:
    files = [file for file in SITE.glob("*.*") if file.suffix in (".html", ".css", ".js")]
    link = re.compile(r"""(?:src|import|from|fetch|url)\W{1,3}(?:https?:|//)""")
    assert files
    assert {file.name: found for file in files if (found := link.findall(file.read_text("utf-8")))} == {}


def test_the_default_comes_first_and_three_at_most() -> None:
    models = packaged_models()
    assert models[0].name == weights.entry(DEFAULT_MODEL).name
    assert len(models) <= 3
    assert {SITE / model.file for model in models} == set((SITE / "models").iterdir())


@pytest.mark.parametrize("model", packaged_models(), ids=lambda model: model.name)
def test_its_weights_are_those_of_the_manifest(model: PageModel) -> None:
    row = weights.entry(*model.name.split("."))
    assert (model.name, model.weights_sha256) == (row.name, row.sha256), "run python tools/create_demo.py models"
    # The command takes what ships by the model's name alone.
    assert row == weights.entry(row.model)
    assert model.sha256 == weights.file_sha256(SITE / model.file)
    assert model.size == (SITE / model.file).stat().st_size
    onnx = pytest.importorskip("onnx")
    metadata = {item.key: item.value for item in onnx.load(SITE / model.file).metadata_props}
    assert metadata["weights_sha256"] == row.sha256


def test_the_digits_are_real_ones_that_training_never_sees() -> None:
    known = {bytes(digit) for digit in load_digits(SAMPLES, "test").numpy().reshape(-1, 784)}
    shipped = (SITE / "digits.bin").read_bytes()
    digits = [shipped[i : i + 784] for i in range(0, len(shipped), 784)]
    assert len(set(digits)) == 100
    assert set(digits) <= known


@pytest.mark.skipif(not NOTICE.is_file(), reason="needs the checkout")
def test_notice_names_the_runtime_that_ships() -> None:
    notice = NOTICE.read_text(encoding="utf-8")
    for file in sorted((SITE / "ort").glob("*.*js")) + sorted((SITE / "ort").glob("*.wasm")):
        assert f"{weights.file_sha256(file)}  {file.name}" in notice
    version = re.search(r"ONNX Runtime Web v([\d.]+)", (SITE / "ort" / "ort.wasm.min.mjs").read_text("utf-8"))
    assert version is not None
    assert f"onnxruntime-web {version[1]}" in notice
