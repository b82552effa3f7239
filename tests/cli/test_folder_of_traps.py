"""A folder of downloads holds Python files by the names of what plasm imports: no command runs one."""

import importlib.util
import os
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from radar_files import write_event

from plasm import weights

TRAP = "import os\nopen(os.environ['SPRUNG'], 'a').write(__name__ + '\\n')\n"
PACKAGES = [
    "av", "h5py", "PIL", "onnx", "onnxruntime", "onnxscript", "openvino", "matplotlib", "skimage", "tqdm", "torch",
    "timm", "torchvision", "numpy", "scipy", "click", "tomli", "tomli_w", "einops", "safetensors", "huggingface_hub",
    "tensorboard", "hickle", "netCDF4", "xarray", "tifffile", "imagecodecs", "rasterio", "cfgrib",
    "hdf5plugin", "accelerate",    "requests", "httpx", "yaml", "triton", "sympy", "networkx", "jinja2",
    "sitecustomize", "usercustomize",
]  # fmt: skip
# Settings that libraries look for where they are started.
SETTINGS = [
    "matplotlibrc", "pystepsrc", ".pystepsrc", ".ncrc", ".dodsrc", ".daprc", ".env", ".netrc", "setup.cfg", "tox.ini",
    "pyproject.toml", ".numba_config.yaml", "gdalrc", ".gdalrc", "jupyter_config.py", "config.toml", "token",
]  # fmt: skip
# `python -m` has imported these before it looks for plasm, and before any line of plasm runs.
BEFORE = {"runpy", "pkgutil", "importlib", "__future__", "this", "antigravity"}
SMALL = {"encoder_dim": 4, "encoder_depth": 2, "translator_dim": 8, "translator_depth": 1, "num_heads": 2}
SHORT = ["--model", "plasm_mmnist_tiny", "--data", "mmnist", "--data-dir", "SAMPLES", "--epochs", "1",
         "--clips-per-epoch", "2", "--batch-size", "2", "--val-clips", "1"]  # fmt: skip
SHORT += [part for name, value in SMALL.items() for part in ("--model-arg", f"{name}={value}")]
COMMANDS = [
    ["list", "plasm_mmnist_tiny"],
    ["list", "--weights"],
    ["predict", "--weights", "small", "--input", "clip.gif", "--out", "p"],
    ["predict", "--weights", "small", "--input", "clip.npy", "--out", "q.mp4"],
    ["evaluate", "--weights", "small", "--data", "mmnist", "--data-dir", "SAMPLES", "--num-clips", "1"],
    ["train", *SHORT, "--out", "r", "--workers", "1"],
    ["pretrain", *SHORT, "--out", "s"],
    ["export", "small", "--out", "m.pt2", "--format", "pt2", "--size", "16", "16"],
    ["demo", "--out", "page"],
    ["convert", "old.pth", "new.safetensors"],
    ["push", "nowhere", "--repo", "a/b"],
    ["data", "count", "mmnist", "--data-dir", "SAMPLES", "--num-frames", "20"],
    ["data", "show", "mmnist", "--data-dir", "SAMPLES", "--num-frames", "20", "--out", "c.png"],
    ["benchmark", "plasm_mmnist_tiny", "--rounds", "1", "--batch-size", "1", "--out", "b", *SHORT[-10:]],
]
RADAR = ["predict", "--data", "radar", "--weights", "rain", "--input", "radar", "--frames", "2", "--out", "rain.nc"]


@pytest.fixture(scope="module")
def traps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, and a trap for every module of the standard library and every package."""
    folder = tmp_path_factory.mktemp("downloads")
    names = {name for name in sys.stdlib_module_names if not name.startswith("_")} | {*PACKAGES}
    names |= {module.name for module in pkgutil.iter_modules() if module.name.isidentifier()}
    for name in names - BEFORE - {"plasm"}:
        (folder / f"{name}.py").write_text(TRAP)
    frames = np.random.default_rng(0).integers(0, 256, (12, 32, 32), dtype=np.uint8)
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(folder / "clip.gif", save_all=True, append_images=images[1:])
    np.save(folder / "clip.npy", frames)
    torch.save({"a": torch.ones(3)}, folder / "old.pth")
    weights.save_pretrained(timm.create_model("plasm_mmnist_tiny", **SMALL), folder / "small")
    weights.save_pretrained(timm.create_model("plasm_mmnist_tiny", in_frames=4, out_frames=3, **SMALL), folder / "rain")
    for name in SETTINGS:
        # matplotlib would say so of the first, and import the second.
        (folder / name).write_text("no setting at all\nbackend: module://trap\n")
    if has_radar():
        write_event(folder / "radar", count=5)
    return folder


def has_radar() -> bool:
    return all(importlib.util.find_spec(name) for name in ("h5py", "h5netcdf", "xarray", "pyproj"))


# All in one process each, since the start of torch is what takes the time.
PROGRAM = """
import os, sys, time
folder, settings = os.getcwd(), {settings!r}

def look(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and os.path.basename(arguments[0]) in settings:
        if os.path.dirname(os.path.abspath(arguments[0])) == folder:
            os.write(sprung, (arguments[0] + "\\n").encode())

sprung = os.open(os.environ["SPRUNG"], os.O_WRONLY | os.O_CREAT)
sys.addaudithook(look)
from plasm.cli import main
for arguments in {commands!r}:
    try:
        main(arguments, prog_name="plasm")
    except SystemExit as end:
        print("ended", arguments[:1], time.perf_counter(), end.code, flush=True)
"""


def run(command: list[str], folder: Path, tmp_path: Path, expected: int = 0) -> str:
    sprung = tmp_path / "sprung"
    environment = {**os.environ, "SPRUNG": str(sprung)}
    environment.pop("PYTHONSAFEPATH", None)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert not sprung.exists() or not sprung.read_text(), f"{command} ran {sprung.read_text().split()}"
    assert done.returncode == expected, done.stderr
    return done.stdout + done.stderr


def test_no_command_runs_a_file_of_the_folder(traps: Path, tmp_path: Path, sample_root: Path) -> None:
    commands = [[str(sample_root) if part == "SAMPLES" else part for part in command] for command in COMMANDS]
    commands += [RADAR] * has_radar()
    # As the console script is: a file elsewhere, whose folder is on the path.
    script = tmp_path / "bin" / "plasm"
    script.parent.mkdir()
    script.write_text(PROGRAM.format(commands=commands, settings=SETTINGS))
    output = run([sys.executable, str(script)], traps, tmp_path)
    ends = [line.split()[-1] for line in output.splitlines() if line.startswith("ended")]
    assert ends == ["1" if command[0] == "push" else "0" for command in commands], output


def test_python_m_plasm_does_not_either(traps: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(traps, tmp_path / "downloads")
    # What `python -m` imports itself, before it looks for the module, is out of anybody's reach.
    (folder / "nothing.py").touch()
    environment = {**os.environ, "SPRUNG": str(tmp_path / "python")}
    environment.pop("PYTHONSAFEPATH", None)
    for _ in range(20):
        subprocess.run([sys.executable, "-m", "nothing"], cwd=folder, env=environment, capture_output=True)
        if not (tmp_path / "python").exists():
            break
        for name in {*(tmp_path / "python").read_text().split()}:
            (folder / f"{name}.py").unlink()
        (tmp_path / "python").unlink()
    assert len([*folder.glob("*.py")]) > 200
    output = run(
        [sys.executable, "-m", "plasm", "predict", "--weights", "small", "--input", "clip.gif", "--out", "m"],
        folder,
        tmp_path,
    )
    assert "10 -> 10 frames" in output
