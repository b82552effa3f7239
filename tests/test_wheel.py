"""The built wheel, as a separate project uses it that knows nothing of the checkout."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hub_server import Hub

import plasm
from plasm.demo import packaged_models

ROOT = Path(plasm.__file__).parents[1]

PROJECT = '''
"""A project that forecasts."""

import sys
from importlib.metadata import version
from threading import Thread
from urllib.request import urlopen

import timm
import torch

import plasm
from plasm.demo import DemoServer, packaged_models, site_files

assert plasm.__file__.startswith(sys.argv[1]), plasm.__file__
assert plasm.__version__ == version("plasm-video")
assert plasm.list_models(pretrained=True)
assert set(plasm.list_models(pretrained=True)) <= set(timm.list_models(pretrained=True))
for name in ("plasm_mmnist_tiny", "hf-hub:someone/model"):
    model = timm.create_model(name, pretrained=True).eval()
    future = model.predict(torch.zeros(1, model.in_frames, 1, 64, 64))
    assert future.isfinite().all()
    print(name, tuple(future.shape))
try:
    timm.create_model("plasm_kth", pretrained=True)
except plasm.weights.WeightsNotFoundError as error:
    print(error)
with DemoServer(site_files()) as server:
    Thread(target=server.serve_forever, daemon=True).start()
    sizes = {name: len(urlopen(server.url + name).read()) for name in server.files}
    server.shutdown()
assert all(sizes[model.file] == model.size for model in packaged_models())
print(f"page: {sorted(name for name in sizes if name.endswith(('.html', '.wasm', '.onnx')))}")
'''


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True)


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "setup.cfg").is_file(), reason="needs the checkout")
def test_another_project_uses_the_wheel(tmp_path: Path, hub: Hub, untrusted: Path) -> None:
    # Not by importlib's find_spec: setuptools hides its distutils from a process that looks for pip.
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("needs pip")
    source, site, project = tmp_path / "source", tmp_path / "site", tmp_path / "project"
    # A copy: a build writes beside the sources.
    source.mkdir()
    shutil.copytree(ROOT / "plasm", source / "plasm", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    pip("wheel", source, "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path)
    (wheel,) = tmp_path.glob("plasm_video-*.whl")
    pip("install", wheel, "--no-deps", "--target", site)
    project.mkdir()
    (project / "main.py").write_text(PROJECT)
    hub.add("someone/model", {file.name: file.read_bytes() for file in untrusted.iterdir()})
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]),
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "PLASM_WEIGHTS": "",
    }
    run = subprocess.run(
        [sys.executable, "main.py", str(site)], cwd=project, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    first, second, third, page = run.stdout.splitlines()
    assert first == "plasm_mmnist_tiny (1, 10, 1, 64, 64)"
    assert second == "hf-hub:someone/model (1, 10, 1, 64, 64)"
    assert third.startswith("no weights are published for plasm_kth; there are: plasm_mmnist_tiny.")
    models = sorted(model.file for model in packaged_models())
    assert page == f"page: {['index.html', *models, 'ort/ort-wasm-simd-threaded.wasm']}"


@pytest.mark.skipif(not (ROOT / "setup.cfg").is_file(), reason="needs the checkout")
def test_an_editable_install_is_imported_from_the_parent_folder(tmp_path: Path) -> None:
    """Where the clone is called plasm, its folder could be a package of that name, too: one without a file."""
    pytest.importorskip("setuptools", minversion="77")
    clone, site = tmp_path / "plasm", tmp_path / "site"
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors", "site", "samples")
    shutil.copytree(ROOT / "plasm", clone / "plasm", ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, clone)
    build = f"from setuptools.build_meta import build_editable; build_editable({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=clone, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("plasm_video-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # Before whatever is installed here, and after the current folder.
    script = (
        f"import site, sys; count = len(sys.path); site.addsitedir({str(site)!r}); sys.path[1:1] = sys.path[count:]; "
        "import plasm; print(plasm.__file__, plasm.create_model)"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(str(clone / "plasm" / "__init__.py"))


# The project of that name on the package index is another one.
_OTHER = re.compile(
    r"(?<![\w-])plasm\\?\[|pip3? install(?:(?! && |[;`|]).)*?[\s'\"](?:plasm|plasm[=<>~!][^\s'\"]*)(?:$|[\s'\"`])"
)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ('pip install "plasm[cli]"', True), ("pip install plasm", True), ("`pip install -U plasm`", True),
        ("pip install 'plasm>=0.1'", True), ("the extra `plasm[onnx]`", True), ("test = plasm[cli,video]", True),
        ('pip install "plasm-video[cli]"', False), ('pip install ".[cli]" && plasm predict', False),
        ("pip install plasm-video", False), ("pip install -e . && cd plasm", False), ("import plasm", False),
    ],
)  # fmt: skip
def test_the_other_project_is_recognised(line: str, wrong: bool) -> None:
    assert bool(_OTHER.search(line)) == wrong


@pytest.mark.skipif(not (ROOT / "setup.cfg").is_file(), reason="needs the checkout")
def test_nothing_says_to_install_the_other_project() -> None:
    endings = {".md", ".py", ".cfg", ".toml", ".yml", ".html", ".js", ".cff", ".ipynb", ""}
    folders = [ROOT / name for name in ("plasm", "docs", "benchmarks", "tools", ".ci", ".github")]
    files = [*ROOT.iterdir(), *(file for folder in folders for file in folder.rglob("*"))]
    found = [
        f"{file}: {line}"
        for file in files
        if file.is_file() and file.suffix in endings and "__pycache__" not in file.parts
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
        if _OTHER.search(line)
    ]
    assert not found
