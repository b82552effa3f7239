"""The page in a real browser."""

import base64
import hashlib
import re
import shutil
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from threading import Thread
from typing import Any

import av
import numpy as np
import pytest
import timm
import torch
from PIL import Image

from plasm.data.moving_mnist import FREE_RANGE, ONE, _velocities, trajectories
from plasm.demo import SITE, DemoServer, packaged_models, site_files
from plasm.pictures import movie

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright's Python client")
sync_api.expect.set_options(timeout=60_000)  # a busy machine is no failure
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("needs Chromium on the path", allow_module_level=True)
# No sandbox inside a sandbox; and no looking around for the browser's maker.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
PHONE = {"width": 360, "height": 740}
STATE = "plasmDemo.state"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def serving(files: dict[str, Any]) -> Iterator[DemoServer]:
    with DemoServer(files) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@contextmanager
def opened(browser: Any, server: DemoServer, **options: Any) -> Iterator[Any]:
    """The page, which says nothing to the console, and asks no other server for anything."""
    context = browser.new_context(**options)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    context.on("request", lambda request: asked.append(request.url))
    page.goto(server.url)
    page.said, page.asked = said, asked
    yield page
    assert [url for url in asked if not url.startswith((server.url, "blob:", "data:"))] == []
    context.close()


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with serving(site_files()) as server:
        yield server


@pytest.fixture(scope="module")
def page(browser: Any, server: DemoServer) -> Iterator[Any]:
    with opened(browser, server, accept_downloads=False) as page:
        until(page, f"{STATE}.scene?.forecast.length === 10")
        yield page
        assert page.said == []


def until(page: Any, condition: str, seconds: float = 180) -> None:
    """Wait. Playwright's own waiting needs what the page's policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"{condition} does not come: {page.inner_text('main')}"
        time.sleep(0.05)


def set_slider(page: Any, name: str, value: int) -> None:
    page.evaluate(
        f"const s = document.getElementById('{name}'); s.value = {value}; s.dispatchEvent(new Event('input'))"
    )


def floats(page: Any, frames: str) -> torch.Tensor:
    """(T, 1, 64, 64) of frames of the page."""
    # In base64: playwright takes a number at a time, and there are many.
    text = f"{frames}.map((frame) => btoa(String.fromCharCode(...new Uint8Array(frame.buffer))))"
    data = b"".join(map(base64.b64decode, page.evaluate(text)))
    return torch.frombuffer(bytearray(data), dtype=torch.float32).view(-1, 1, 64, 64)


def thrown(page: Any) -> list[dict[str, Any]]:
    """The digits before the first frame."""
    return page.evaluate(f"{STATE}.digits.map((digit) => ({{ ...digit, image: Array.from(digit.image) }}))")


def motion(digits: list[dict[str, Any]], num_frames: int) -> torch.Tensor:
    """(T, 1, 64, 64): digits in motion, by the data set's arithmetic."""
    layers = torch.zeros(len(digits), num_frames, 64, 64)
    for layer, digit in zip(layers, digits, strict=True):
        image = torch.tensor(digit["image"], dtype=torch.float32).view(28, 28)
        paths = trajectories(torch.tensor(digit["place"]), torch.tensor(digit["velocity"]), num_frames)
        for frame, (top, left) in zip(layer, ((paths * FREE_RANGE) >> 24).T.tolist(), strict=True):
            frame[top : top + 28, left : left + 28] = image
    return layers.amax(0).unsqueeze(1) / 255


def throw(page: Any, number: int, right: float, down: float) -> None:
    """Drag a digit, as a hand does."""
    box = page.locator(".handle").nth(number).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + right, y + down, steps=4)
    page.mouse.up()


def test_a_thrown_digit_moves_as_the_data_set_has_it_and_the_forecast_is_torchs(page: Any) -> None:
    set_slider(page, "horizon", 40)
    set_slider(page, "time", 5)
    throw(page, 1, right=24, down=-32)
    until(page, f"{STATE}.scene.forecast.length === 40")
    digits = thrown(page)
    down, right = digits[1]["velocity"]
    assert right > 0 > down
    assert abs(down / right + 32 / 24) < 0.1
    assert all(digit["velocity"] in _velocities(torch.device("cpu")).tolist() for digit in digits[1:])
    truth, forecast = floats(page, f"{STATE}.scene.truth"), floats(page, f"{STATE}.scene.forecast")
    torch.testing.assert_close(truth, motion(digits, 50), rtol=0, atol=0)
    model = timm.create_model("plasm_mmnist_tiny", pretrained=True).eval()
    expected = model.predict(truth[None, :10], 40)[0]
    assert (forecast - expected).abs().max() < 1e-3
    errors = torch.tensor(page.evaluate(f"{STATE}.scene.errors"))
    torch.testing.assert_close(errors, (expected - truth[10:]).square().sum((1, 2, 3)), rtol=1e-2, atol=1e-2)
    # Of all 40 frames, not of ten.
    assert re.search(r": 40 frames in \d+ ms", page.inner_text("#status"))
    held = torch.tensor(page.evaluate(f"{STATE}.scene.still"))
    torch.testing.assert_close(held, (truth[9:10] - truth[10:]).square().sum((1, 2, 3)), rtol=1e-4, atol=1e-3)


def test_any_motion_is_the_data_sets(page: Any) -> None:
    script = """async ([starts, angles]) => {
        const { states, velocityAt } = await import("/motion.js");
        const digits = starts.map((place, i) => ({ place, velocity: velocityAt(angles[i]) }));
        const all = states(digits, 60);
        return { velocity: all[0].map((d) => d.velocity), places: all.slice(1).map((s) => s.map((d) => d.place)) };
    }"""
    table = _velocities(torch.device("cpu"))
    index = torch.cat([torch.randint(len(table), (200,)), torch.arange(0, len(table), len(table) // 8)])
    starts = torch.randint(ONE, (len(index), 2))
    starts[:20] = torch.randint(2, (20, 2)) * (ONE - 1)
    angles = (2 * np.pi * index.double() / len(table)).tolist()
    made = page.evaluate(script, [starts.tolist(), angles])
    assert made["velocity"] == table[index].tolist()
    places = torch.tensor(made["places"]).permute(1, 2, 0)
    torch.testing.assert_close(places, trajectories(starts, table[index], 60), rtol=0, atol=0)


def test_it_plays_the_input_then_the_forecast_and_pauses(page: Any) -> None:
    set_slider(page, "horizon", 10)
    set_slider(page, "time", 9)
    assert page.inner_text("#time-tag") == "seen 9 / 10"
    page.click("#play")
    until(page, f"{STATE}.frame > 11")
    page.click("#play")
    frame = page.evaluate(f"{STATE}.frame")
    assert page.inner_text("#forecast-tag") == f"+{frame - 10}"
    assert page.inner_text("#time-tag") == f"ahead {frame - 10} / 10"
    assert float(page.inner_text("#error-tag")) == pytest.approx(
        page.evaluate(f"{STATE}.scene.errors[{frame - 11}]"), abs=0.06
    )


def test_keys_catch_turn_and_throw_a_digit(page: Any) -> None:
    set_slider(page, "time", 5)
    page.locator(".handle").first.focus()
    page.keyboard.press("Shift+ArrowLeft")
    assert page.evaluate(f"{STATE}.frame") == 0
    before = complex(*thrown(page)[0]["velocity"][::-1])
    page.keyboard.press("ArrowRight")
    # Clockwise by 15 degrees, to the nearest direction that there is.
    turn = complex(*thrown(page)[0]["velocity"][::-1]) / before
    assert turn == pytest.approx(np.exp(1j * np.pi / 12), abs=2e-4)
    page.keyboard.press("Enter")
    until(page, f"{STATE}.frame > 0 && {STATE}.scene.forecast.length === 10")
    torch.testing.assert_close(floats(page, f"{STATE}.scene.truth"), motion(thrown(page), 50), rtol=0, atol=0)


def test_a_digit_is_chosen_or_drawn(page: Any) -> None:
    page.click(".slot >> nth=0")
    page.click('#choices [aria-label="digit 7"] >> nth=3')
    shipped = (SITE / "digits.bin").read_bytes()
    assert bytes(thrown(page)[0]["image"]) == shipped[73 * 784 : 74 * 784]
    page.click(".slot >> nth=0")
    box = page.locator("#pad").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 20, box["y"] + 120, steps=3)
    page.mouse.up()
    page.click("#pad-use")
    drawn = np.array(thrown(page)[0]["image"]).reshape(28, 28)
    rows, columns = np.nonzero(drawn > 64)
    # As in MNIST: 20 pixels tall, its mass in the middle.
    assert 18 <= np.ptp(rows) + 1 <= 20
    assert abs(rows.mean() - 13.5) < 1
    assert abs(columns.mean() - 13.5) < 1


def test_a_clip_of_ones_own(page: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = np.kron(rng.integers(0, 256, (14, 8, 8)), np.ones((8, 8))).astype(np.uint8)
    first, *rest = map(Image.fromarray, frames)
    first.save(tmp_path / "own.gif", save_all=True, append_images=rest, duration=100)
    set_slider(page, "horizon", 10)
    page.set_input_files("#open", tmp_path / "own.gif")
    until(page, f"{STATE}.own && {STATE}.scene.truth.length === 14 && {STATE}.scene.forecast.length === 10")
    truth = floats(page, f"{STATE}.scene.truth")
    torch.testing.assert_close(truth, torch.from_numpy(frames).unsqueeze(1) / 255, rtol=0, atol=1.01 / 255)
    model = timm.create_model("plasm_mmnist_tiny", pretrained=True).eval()
    assert (floats(page, f"{STATE}.scene.forecast") - model.predict(truth[None, :10])[0]).abs().max() < 1e-3
    assert len([e for e in page.evaluate(f"{STATE}.scene.errors") if e is not None]) == 4
    errors, still = (sum(page.evaluate(f"{STATE}.scene.{name}.slice(0, 4)")) / 4 for name in ("errors", "still"))
    assert page.locator("#note").is_visible() == (errors > still)
    movie(truth, tmp_path / "own.webm")
    page.set_input_files("#open", tmp_path / "own.webm")
    until(page, f"{STATE}.own.name === 'own.webm' && {STATE}.scene.truth.length === 14")
    until(page, f"{STATE}.scene.forecast.length === 10")
    assert "frames a second" not in page.inner_text("#status")
    # Frames of such noise are .3 apart; the codec loses a little.
    assert (floats(page, f"{STATE}.scene.truth") - truth).abs().mean((1, 2, 3)).max() < 0.1
    first.save(tmp_path / "short.gif", save_all=True, append_images=rest[:3], duration=100)
    page.set_input_files("#open", tmp_path / "short.gif")
    sync_api.expect(page.locator("#message")).to_contain_text("short.gif has 4 frames; the model sees 10")
    movie(truth[:6], tmp_path / "short.webm", rate=25)
    page.set_input_files("#open", tmp_path / "short.webm")
    sync_api.expect(page.locator("#message")).to_contain_text(
        "short.webm has 6 frames; the model sees 10", timeout=60_000
    )
    page.evaluate("""() => {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File(["GIF89a no"], "no.gif", { type: "image/gif" }));
        dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
    }""")
    sync_api.expect(page.locator("#message")).to_contain_text("no.gif")
    page.click("#shuffle")
    sync_api.expect(page.locator("#message")).to_be_hidden()


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), 60, 2])
def test_every_frame_of_a_video_is_seen(page: Any, tmp_path: Path, rate: Fraction | int) -> None:
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(np.kron(rng.random((12, 8, 8)), np.ones((8, 8))).astype(np.float32)).unsqueeze(1)
    movie(frames, tmp_path / "own.webm", rate=rate)
    ask = """async (text) => {
        const { readClip } = await import("/own-clip.js");
        const file = new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], "a.webm", { type: "video/webm" });
        const { frames, sampled } = await readClip(file, { channels: 1, height: 64, width: 64 }, 50);
        globalThis.answer = frames.map((frame) => Float32Array.from(frame, (value) => value / 255));
        return sampled;
    }"""
    assert page.evaluate(ask, base64.b64encode((tmp_path / "own.webm").read_bytes()).decode()) is None
    assert (floats(page, "answer") - frames).abs().mean((1, 2, 3)).max() < 0.1


def test_a_file_without_pictures_or_with_giant_ones_is_refused(page: Any, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.webm"), "w") as container:
        stream = container.add_stream("libopus", rate=48000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 96000), np.int16), format="s16", layout="mono")
        samples.sample_rate = 48000
        for packet in [*stream.encode(samples), *stream.encode(None)]:
            container.mux(packet)

    def gif(side: int) -> bytes:
        header = b"GIF89a" + struct.pack("<2H3B", side, side, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
        return header + 20 * (b"," + struct.pack("<4HB", 0, 0, side, side, 0) + b"\x02\x02\x4c\x01\x00") + b";"

    (tmp_path / "none.gif").write_bytes(gif(0))
    (tmp_path / "giant.gif").write_bytes(gif(16000))
    (tmp_path / "drawing.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>')
    for name in ("void.gif", "void.mp4"):
        (tmp_path / name).touch()
    Image.new("L", (64, 64)).save(tmp_path / "one.jpg")
    for name, said in (
        ("sound.webm", "has no pictures, only sound"),
        ("none.gif", "has no picture: it is 0x0 pixels"),
        ("giant.gif", "is 16000x16000 pixels large; make it smaller"),
        ("void.gif", "is empty"),
        ("void.mp4", "is empty"),
        ("drawing.svg", "is image/svg+xml, which this browser does not take apart"),
        ("one.jpg", "is a single picture"),
    ):
        page.set_input_files("#open", tmp_path / name)
        sync_api.expect(page.locator("#message")).to_contain_text(f"{name} {said}")
    assert page.evaluate(f"{STATE}.own?.name") not in ("sound.webm", "none.gif", "giant.gif")


def test_it_fits_a_phone_and_says_whose_digits_they_are(page: Any) -> None:
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert "CC BY-SA 3.0" in page.inner_text("footer")
    assert page.locator("footer").is_visible()


def test_a_switch_between_weights_loads_them_when_they_are_chosen(browser: Any, server: DemoServer) -> None:
    first, *others = packaged_models()
    with opened(browser, server) as page:
        until(page, f"{STATE}.scene?.forecast.length === 10")
        for number, model in enumerate(others):
            assert [url for url in page.asked if url.endswith(".onnx")] == [
                f"{server.url}{each.file}" for each in (first, *others)[: number + 1]
            ]
            page.select_option("#weights", model.name)
            until(page, f"{STATE}.model.name === '{model.name}' && {STATE}.scene.forecast.length === 10")
            assert page.inner_text("#status").startswith(f"{model.name}: 10 frames in")
            truth, forecast = floats(page, f"{STATE}.scene.truth"), floats(page, f"{STATE}.scene.forecast")
            expected = timm.create_model(model.name, pretrained=True).eval().predict(truth[None, :10])[0]
            assert (forecast - expected).abs().max() < 1e-3
        assert page.said == []


def damaged(name: str) -> dict[str, Any]:
    """The page with a file that is not what it was."""
    files = site_files()
    content = bytearray((SITE / name).read_bytes())
    content[len(content) // 2] ^= 1
    return {**files, name: bytes(content)}


def no_model() -> dict[str, Any]:
    """The page with a whole file that is no model."""
    content = b"no model"
    model = replace(packaged_models()[0], size=len(content), sha256=hashlib.sha256(content).hexdigest())
    return {**site_files([model]), model.file: content}


def without(name: str) -> dict[str, Any]:
    """The page with a file missing."""
    return {path: content for path, content in site_files().items() if path != name}


MODEL = packaged_models()[0].file
WEB = Path(__file__).parents[2] / "docs" / "web.md"


@pytest.mark.parametrize(
    ("files", "title"),
    [
        (damaged(MODEL), "The model does not load"),
        (no_model(), "The model does not load"),
        (without(MODEL), "The model does not load"),
        (without("ort/ort-wasm-simd-threaded.wasm"), "The forecast cannot run in this browser"),
        (without("worker.js"), "The forecast cannot run in this browser"),
    ],
    ids=["damaged", "no model", "missing", "no runtime", "no worker"],
)
def test_what_fails_is_said_and_the_motion_plays_on(browser: Any, files: dict[str, Any], title: str) -> None:
    with serving(files) as server, opened(browser, server) as page:
        sync_api.expect(page.locator("#message strong")).to_have_text(title, timeout=60_000)
        assert "true motion plays" in page.inner_text("#message")
        # It may be said before the digits are thrown, which then play by themselves.
        until(page, f"{STATE}.scene !== null")
        set_slider(page, "time", 10)
        page.click("#play")
        until(page, f"{STATE}.frame > 11")
        page.click("#shuffle")
        assert page.locator("#message").is_visible()


def fences(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(not WEB.is_file(), reason="needs the checkout")
def test_the_web_page_of_the_documentation(browser: Any) -> None:
    (script,), (index,) = fences(WEB, "js"), fences(WEB, "html")
    runtime = {name: SITE / name for name in site_files() if name.startswith("ort/")}
    files = {"index.html": index.encode(), "forecast.js": script.encode(), "model.onnx": SITE / MODEL, **runtime}
    clip = torch.rand(10, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    ask = """async (text) => {
        const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
        const data = await (await import("/forecast.js")).forecast(new Float32Array(bytes.buffer));
        globalThis.answer = Array.from({ length: 10 }, (_, t) => data.slice(4096 * t, 4096 * (t + 1)));
    }"""
    drawn = "document.getElementById('screen').getContext('2d').getImageData(0, 0, 64, 64).data"
    with serving(files) as server, opened(browser, server) as page:
        # Light on the opaque black of a frame: the square of the page itself.
        until(page, f"{drawn}.reduce((sum, value) => sum + value, 0) > 64 * 64 * 255 + 200 * 3 * 255")
        page.evaluate(ask, base64.b64encode(clip.numpy().tobytes()).decode())
        forecast = floats(page, "answer")
        # Of the canvas that is looked at here.
        assert [line for line in page.said if "willReadFrequently" not in line] == []
    model = timm.create_model("plasm_mmnist_tiny", pretrained=True).eval()
    assert (forecast - model.predict(clip[None])[0]).abs().max() < 1e-3


def test_a_forecast_that_is_worse_than_none_is_said_to_be(page: Any, tmp_path: Path) -> None:
    # Nothing moves but a pixel, and no weights for digits draw stripes.
    stripes = np.tile(np.uint8([[40, 220]]), (20, 64, 32))
    stripes[:, 0, 0] = 10 * np.arange(20)
    first, *rest = map(Image.fromarray, stripes)
    first.save(tmp_path / "stripes.gif", save_all=True, append_images=rest, duration=100)
    page.set_input_files("#open", tmp_path / "stripes.gif")
    sync_api.expect(page.locator("#note")).to_contain_text("trained on moving digits", timeout=60_000)
    sync_api.expect(page.locator("#note")).to_be_visible()
    assert "Worse than the last frame held still: MSE " in page.inner_text("#note")
    set_slider(page, "horizon", 10)


def test_the_tile_of_the_forecast_says_that_it_is_loading(browser: Any) -> None:
    with serving(site_files()) as server, browser.new_context() as context:
        page = context.new_page()
        # The model never comes.
        page.route("**/*.onnx", lambda route: None)
        page.goto(server.url)
        sync_api.expect(page.locator("#wait")).to_have_text("Loading the model, 7.1 MB")
        assert page.locator("#wait").is_visible()
