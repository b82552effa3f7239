"""A GPU in ten minutes: the tests that need one, what models cost on it, and weights of plasm_mmnist.

    python benchmarks/gpu.py --minutes 9 --data-dir DIR --out runs/gpu

In this order, each result written into OUT as soon as it is there:

1. ``tests.txt``: the tests marked ``gpu``.
2. ``throughput.csv``: forward passes and training steps of the league's models and of the PLA-SM paper's, in bfloat16
   and float32, eager and compiled, batches of 16 and 64: clips a second, share of the device's peak, memory.
3. ``sparse.txt``: the sparse encoder against the dense one.
4. ``run``: training of plasm_mmnist for the rest of the time, its clips made on the device. The number of steps follows
   from the speed of the first epoch, so that the learning rate has come down to 0 in time.
5. ``report.json``: its error on 1,000 clips of the test set; ``weights``: a folder of timm's, the weights in half
   precision.

Steps 1 to 3 end when their share of the time is spent, and say what they left out. ``--shard-mb N`` splits the weights
into ``model.safetensors.000``, ``.001``, ... of N MB at most. In the folder of the parts,

    cat model.safetensors.0?? > model.safetensors && sha256sum -c model.safetensors.sha256

joins them and checks the sha256. Then ``timm.create_model("local-dir:runs/gpu/weights", pretrained=True)``, after
``import plasm``, has the model.
"""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

from plasm import training, weights
from plasm.benchmark import Measurement, measure, write_csv
from plasm.data import create_dataset
from plasm.devices import choose_device, has_bf16, move
from plasm.distributed import init_process_group
from plasm.evaluation import evaluate, forecast
from plasm.models import load_model

ROOT = Path(__file__).parent.parent
SHARES = {"tests": 0.1, "throughput": 0.25, "sparse": 0.05}
"""Of the whole time; training has the rest."""
EVALUATION = 0.06
"""Of the whole time, kept at the end for the error and the weights."""
MODELS = ("plasm_mmnist_tiny", "simvp_gsta_mmnist_tiny", "predrnn_mmnist_tiny", "convlstm_mmnist_tiny")
PAPERS = ("plasm_mmnist", "simvp_mmnist", "tau_mmnist", "predrnn_mmnist")
EPOCHS = 20
"""Of the training, about: so often it looks at the validation clips and writes a checkpoint."""
DECAY = 0.25
"""Share of the epochs over which the learning rate falls to 0."""
VAL_CLIPS, TEST_CLIPS = 100, 1000


def cases(device: torch.device) -> Iterator[dict[str, Any]]:
    """Settings of ``measure``, those first that matter most."""
    for runtime in ("eager", "compile"):
        for dtype in (torch.bfloat16, torch.float32):
            for batch_size in (16, 64):
                for model in (*MODELS, *PAPERS):
                    yield {
                        "models": [model], "device": device, "batch_size": batch_size, "train": True, "dtype": dtype,
                        "runtime": runtime,
                    }  # fmt: skip


def run_tests(device: torch.device, out: Path, seconds: float) -> str:
    """Run the tests marked ``gpu``."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-n", "0", "-q", str(ROOT / "tests")]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
        text = done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        text = f"{(error.stdout or b'').decode()}\nstopped after {seconds:.0f} s"
    (out / "tests.txt").write_text(text, encoding="utf-8")
    return text.strip().splitlines()[-1]


def throughput(device: torch.device, out: Path, seconds: float, rounds: int = 3) -> str:
    """Measure models, one after the other, until the time is spent."""
    end, rows, left = time.monotonic() + seconds, list[Measurement](), list[str]()
    for case in cases(device):
        name = f"{case['models'][0]}, {case['runtime']}, {case['dtype']}, batch {case['batch_size']}"
        if time.monotonic() > end:
            left.append(f"{name}: no time was left")
            continue
        try:
            rows += measure(**case, rounds=rounds)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            left.append(f"{name}: {str(error).partition(chr(10))[0]}")
        write_csv(rows, out / "throughput.csv")
        if device.type == "cuda":
            torch.cuda.empty_cache()
    (out / "throughput_left_out.txt").write_text("".join(f"{line}\n" for line in left), encoding="utf-8")
    return f"{len(rows)} rows; {len(left)} left out"


def sparse(device: torch.device, out: Path, seconds: float) -> str:
    """Measure the sparse encoder against the dense one, a mask ratio at a time."""
    end, lines = time.monotonic() + seconds, list[str]()
    dtype = "bfloat16" if has_bf16(device) else "float32"
    for ratio in ("0.96", "0.9", "0.5"):
        command = [
            sys.executable, str(ROOT / "benchmarks" / "sparse.py"), "--ratios", ratio, "--rounds", "3", "--device",
            device.type, "--dtype", dtype,
        ]  # fmt: skip
        try:
            left = max(1.0, end - time.monotonic())
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=left, check=False)
            lines.append(done.stdout + done.stderr)
        except subprocess.TimeoutExpired:
            lines.append(f"r0 {ratio}: stopped, no time was left\n")
        (out / "sparse.txt").write_text("\n".join(lines), encoding="utf-8")
    return f"{sum('stopped' not in line for line in lines)} of {len(lines)} mask ratios"


def train(model: str, data_dir: str, device: torch.device, out: Path, seconds: float, batch_size: int = 16) -> Path:
    """Train from scratch, so that it ends in time, and give the folder of the run.

    The first epoch is made as long as a quick measurement says; the number of epochs follows from the time that it
    took, its checkpoint and its look at the validation clips included.
    """
    end = time.monotonic() + seconds
    bf16 = has_bf16(device)
    dtype = torch.bfloat16 if bf16 else torch.float32
    _, step = measure([model], device, batch_size, train=True, dtype=dtype, rounds=1)
    steps = max(1, int(step.clips_per_second * (end - time.monotonic()) / EPOCHS / batch_size))
    config = training.create_config(
        training.TrainConfig,
        {
            "model": model, "data": "mmnist", "data_dir": data_dir, "out": str(out / "run"), "device": device.type,
            "batch_size": batch_size, "clips_per_epoch": steps * batch_size, "epochs": 1, "val_clips": VAL_CLIPS,
            "optimizer": "muon", "lr": 0.004, "schedule": "wsd", "warmup_steps": min(100, steps), "bf16": bf16,
            "checkpoint_minutes": 60.0,
        },
    )  # fmt: skip
    started = time.monotonic()
    training.run(config)
    each = time.monotonic() - started
    # A tenth of what is left stays, since the device may slow down.
    more = max(1, int(0.9 * (end - time.monotonic()) / each))
    epochs = 1 + more
    training.run(replace(config, epochs=epochs, decay_epochs=max(1, round(DECAY * epochs))), resume=True)
    return out / "run"


def export(model: str, run: Path, out: Path) -> Path:
    """Write the weights of a run in half precision as a folder that timm loads."""
    folder = out / "weights"
    loaded = load_model(model, str(run))
    loaded.load_state_dict(weights.half_precision(loaded.state_dict()), assign=True)
    weights.save_pretrained(loaded, folder)
    return folder


def split(file: Path, size: int) -> list[Path]:
    """Cut a file into parts of so many bytes at most, beside a file of its sha256, and delete it."""
    content = file.read_bytes()
    parts = []
    for number, start in enumerate(range(0, len(content), size)):
        parts.append(file.with_name(f"{file.name}.{number:03d}"))
        parts[-1].write_bytes(content[start : start + size])
    digest = hashlib.sha256(content).hexdigest()
    file.with_name(f"{file.name}.sha256").write_text(f"{digest}  {file.name}\n", encoding="ascii")
    file.unlink()
    return parts


def error(model: str, folder: Path, data_dir: str, device: torch.device) -> dict[str, float]:
    """What the weights of a folder do on the first test clips."""
    clips = create_dataset("mmnist", Path(data_dir), "test", num_clips=TEST_CLIPS, num_frames=20)
    loaded = move(load_model(model, str(folder)), device).eval()
    with init_process_group(device) as group:
        return dict(evaluate({"model": forecast(loaded)}, clips, 10, 10, group=group)["model"].means)


@click.command()
@click.option("--minutes", default=9.0, show_default=True, help="For all of it.")
@click.option("--data-dir", required=True, help="Folder of the digits' files.")
@click.option("--out", required=True, type=Path, help="Folder of the results; a new one.")
@click.option("--device", "device_name", default="auto", show_default=True, help="cuda, cpu, or auto.")
@click.option("--model", default="plasm_mmnist", show_default=True, help="What is trained, on Moving MNIST.")
@click.option("--shard-mb", type=click.IntRange(1), help="Split the weights into parts of so many MB.")
def main(minutes: float, data_dir: str, out: Path, device_name: str, model: str, shard_mb: int | None) -> None:
    """Use a GPU for MINUTES."""
    started, whole = time.monotonic(), 60 * minutes
    device = choose_device(device_name)
    out.mkdir(parents=True)
    report: dict[str, Any] = {"device": device.type, "torch": torch.__version__, "minutes": minutes, "model": model}
    if device.type == "cuda":
        report["hardware"] = torch.cuda.get_device_name(device)

    def note(name: str, what: Any) -> None:
        report[name] = what
        (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        click.echo(f"{(time.monotonic() - started) / 60:.1f} min  {name}: {what}")

    spent = 0.0
    for name, run in (("tests", run_tests), ("throughput", throughput), ("sparse", sparse)):
        # What one step left is the next one's.
        spent += SHARES[name] * whole
        note(name, run(device, out, max(1.0, spent - (time.monotonic() - started))))
    left = whole * (1 - EVALUATION) - (time.monotonic() - started)
    run_folder = train(model, data_dir, device, out, left)
    note("clips", json.loads((run_folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])["clips"])
    folder = export(model, run_folder, out)
    note("error", error(model, folder, data_dir, device))
    if shard_mb is not None:
        note("parts", [part.name for part in split(folder / "model.safetensors", shard_mb * 10**6)])


if __name__ == "__main__":
    main()
