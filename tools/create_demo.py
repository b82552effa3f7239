"""Make what ships with the page of `plasm demo`.

Usage: python tools/create_demo.py models              the weights it shows as ONNX, after they have changed
       python tools/create_demo.py digits MNIST_DIR    the digits
       python tools/create_demo.py runtime             ONNX Runtime Web, from npm
"""

import gzip
import subprocess
import tarfile
import tempfile
from pathlib import Path

import click
import numpy as np

from plasm import weights
from plasm.data import load_digits
from plasm.demo.export import page_model
from plasm.demo.models import SITE, write_list
from plasm.prediction import DEFAULT_MODEL

RUNTIME = "onnxruntime-web@1.30.0"
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
DIGITS_EACH = 10

MODELS = (DEFAULT_MODEL, "predrnn_mmnist_tiny", "simvp_mmnist_tiny")
"""What the page can switch between: each is megabytes of the wheel, and comes to the browser when it is chosen."""


@click.group()
def main() -> None:
    """Make what ships with the page of `plasm demo`."""


@main.command()
def models() -> None:
    """The weights that the page shows as ONNX, and the list that names them."""
    made = [page_model(weights.entry(name).name, SITE) for name in MODELS]
    for old in set((SITE / "models").glob("*.onnx")) - {SITE / model.file for model in made}:
        old.unlink()
    (SITE / "models.json").write_text(write_list(made), encoding="utf-8")
    for model in made:
        click.echo(f"{model.file}: {model.size / 1e6:.1f} MB, of weights {model.weights_sha256}")


@main.command()
@click.argument("mnist_dir", type=Path)
def digits(mnist_dir: Path) -> None:
    """The first ten test digits of each kind, 28 x 28 bytes each, in order."""
    labels = np.frombuffer(gzip.decompress((mnist_dir / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    images = load_digits(mnist_dir, "test").numpy()
    chosen = np.concatenate([np.flatnonzero(labels == kind)[:DIGITS_EACH] for kind in range(10)])
    (SITE / "digits.bin").write_bytes(images[chosen].tobytes())


@main.command()
def runtime() -> None:
    """ONNX Runtime Web. NOTICE states its version and what its files hash to."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", RUNTIME], cwd=folder, check=True)
        (package,) = Path(folder).glob("*.tgz")
        with tarfile.open(package) as archive:
            for name in RUNTIME_FILES:
                member = archive.extractfile(f"package/dist/{name}")
                assert member is not None
                (SITE / "ort" / name).write_bytes(member.read())
    for name in RUNTIME_FILES:
        click.echo(f"{weights.file_sha256(SITE / 'ort' / name)}  {name}")


if __name__ == "__main__":
    main()
