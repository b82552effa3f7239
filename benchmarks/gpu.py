"""A GPU in ten minutes: the tests that need one, what models cost on it, and weights of plasm_mmnist.

    python benchmarks/gpu.py --minutes 9 --data-dir DIR --out runs/gpu

In this order, each result written into OUT as soon as it is there:

1. ``tests.txt``: the tests marked ``gpu``.
2. ``throughput.csv``: forward passes and training steps of the league's models and of four in their papers' size, in
   bfloat16 and float32, eager and compiled, batches of 16 and 64: clips a second, share of the device's peak, memory.
   Recurrent models train eagerly alone.
3. ``sparse.txt``: the sparse encoder against the dense one.
4. ``run``: training of plasm_mmnist for the rest of the time, its clips made on the device. The number of steps follows
   from the speed of the first epoch, so that the learning rate has come down to 0 in time.
5. ``report.json``: its error on 1,000 clips of the test set; ``weights``: a folder of timm's, the weights in half
   precision.

Steps 1 to 3 are processes that end when their share of the time is spent, and say what they left out. ``--shard-mb N``
splits the weights into ``model.safetensors.000``, ``.001``, ... of N MB at most. In the folder of the parts,

    cat model.safetensors.0?? > model.safetensors && sha256sum -c model.safetensors.sha256

joins them and checks the sha256. Then ``timm.create_model("local-dir:runs/gpu/weights", pretrained=True)``, after
``import plasm``, has the model.
"""

import hashlib
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import timm
import torch

from plasm import training, weights
from plasm.benchmark import Measurement, measure, write_csv
from plasm.data import create_dataset
from plasm.devices import choose_device, has_bf16, move
from plasm.distributed import init_process_group
from plasm.evaluation import evaluate, forecast
from plasm.files import atomic_write
from plasm.models import load_model, summarize

ROOT = Path(__file__).parent.parent
SHARES = {"tests": 0.1, "throughput": 0.25, "sparse": 0.05}
"""Of the whole time; training has the rest."""
EVALUATION = 0.06
"""Of the whole time, kept at the end for the error and the weights."""
FIRST = ("plasm_mmnist_tiny", "plasm_mmnist", "simvp_mmnist", "tau_mmnist", "predrnn_mmnist")
"""Models to measure before the rest of the league."""
EPOCHS = 20
"""Of the training, about: so often it looks at the validation clips and writes a checkpoint."""
DECAY = 0.25
"""Share of the epochs over which the learning rate falls to 0."""
VAL_CLIPS, TEST_CLIPS = 100, 1000


def cases(device: torch.device) -> Iterator[dict[str, Any]]:
    """Settings of ``measure``, those first that matter most."""
    models = dict.fromkeys((*FIRST, *timm.list_models("*_mmnist_tiny")))
    for dtype in (torch.bfloat16, torch.float32):
        for runtime in ("eager", "compile"):
            for batch_size in (16, 64):
                for model in models:
                    yield {
                        "models": [model], "device": device, "batch_size": batch_size, "train": True, "dtype": dtype,
                        "runtime": runtime,
                    }  # fmt: skip


def run_limited(command: Sequence[str], seconds: float) -> tuple[int | None, str, str]:
    """Run a command for so long at most: its exit status, None if it was stopped, and what it wrote."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        # Bytes or text, by the system.
        out = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
        return None, out, f"stopped after {seconds:.0f} s\n"
    return done.returncode, done.stdout, done.stderr


def run_tests(device: torch.device, out: Path, seconds: float) -> str:
    """Run the tests marked ``gpu``."""
    # Collecting all of the tests takes longer than there is time.
    files = [str(f) for f in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in f.read_text("utf-8")]
    status, said, errors = run_limited([sys.executable, "-m", "pytest", "-m", "gpu", "-n", "0", "-q", *files], seconds)
    (out / "tests.txt").write_text(said + errors, encoding="utf-8")
    lines = (said if status is not None and said.strip() else errors).strip().splitlines()
    return lines[-1] if lines else f"nothing, exit status {status}"


def measure_cases(device: torch.device, out: Path, rounds: int = 3) -> None:
    """Measure models one after the other, and write after each what is measured, and what is not."""
    rows, failed = list[Measurement](), list[str]()
    settings = list(cases(device))
    names = [
        f"{case['models'][0]}, {case['runtime']}, {case['dtype']}, batch {case['batch_size']}" for case in settings
    ]

    def write(left: list[str]) -> None:
        write_csv(rows, out / "throughput.csv")
        with atomic_write(out / "throughput_left_out.txt") as beside:
            beside.write_text("".join(f"{line}\n" for line in (*failed, *left)), encoding="utf-8")

    for number, (name, case) in enumerate(zip(names, settings, strict=True)):
        write([f"{later}: no time was left" for later in names[number:]])
        try:
            if device.type == "cuda":
                torch.cuda.empty_cache()
            rows += measure(**case, rounds=rounds)
        except Exception as error:  # whatever it is: the next case, and the training, may work
            failed.append(f"{name}: {str(error).partition(chr(10))[0]}")
        if case["runtime"] == "compile":
            torch.compiler.reset()
    write([])


def throughput(device: torch.device, out: Path, seconds: float) -> str:
    """Measure models until the time is spent; in a process that can be ended, since a graph may compile for minutes."""
    process = multiprocessing.get_context("spawn").Process(target=measure_cases, args=(device, out))
    process.start()
    process.join(seconds)
    status = process.exitcode
    process.kill()
    process.join()
    died = f"; ended by itself, exit status {status}" if status else ""
    if not (out / "throughput_left_out.txt").is_file():
        return f"nothing in {seconds:.0f} s{died}"
    rows, left = ((out / f"throughput{end}").read_text(encoding="utf-8") for end in (".csv", "_left_out.txt"))
    return f"{max(0, len(rows.splitlines()) - 1)} rows; {len(left.splitlines())} left out{died}"


def sparse(device: torch.device, out: Path, seconds: float) -> str:
    """Measure the sparse encoder against the dense one, a mask ratio at a time."""
    end, lines, done = time.monotonic() + seconds, list[str](), 0
    dtype = "bfloat16" if has_bf16(device) else "float32"
    for ratio in ("0.96", "0.9", "0.5"):
        command = [
            sys.executable, str(ROOT / "benchmarks" / "sparse.py"), "--ratios", ratio, "--rounds", "3", "--device",
            device.type, "--dtype", dtype,
        ]  # fmt: skip
        status, said, errors = run_limited(command, max(1.0, end - time.monotonic()))
        lines.append(f"r0 {ratio}:\n{said}{errors}")
        done += status == 0
        (out / "sparse.txt").write_text("\n".join(lines), encoding="utf-8")
    return f"{done} of {len(lines)} mask ratios"


def train(model: str, data_dir: str, device: torch.device, out: Path, seconds: float, batch_size: int = 16) -> Path:
    """Train from scratch, so that it ends in time, and give the folder of the run.

    The first epoch is made as long as a quick measurement says; the number of epochs follows from the time that it
    took, its checkpoint and its look at the validation clips included.

    Raises:
        ValueError: If there is no time.
    """
    if seconds <= 0:
        raise ValueError("no time is left to train in: give more --minutes")
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


def export(run: Path, out: Path) -> Path:
    """Write the weights of a run in half precision as a folder that timm loads."""
    folder = out / "weights"
    loaded = load_model(None, str(run))
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


def error(folder: Path, data_dir: str, device: torch.device) -> dict[str, float]:
    """What the weights of a folder do on the first test clips."""
    clips = create_dataset("mmnist", Path(data_dir), "test", num_clips=TEST_CLIPS, num_frames=20)
    loaded = move(load_model(None, str(folder)), device).eval()
    with init_process_group(device) as group:
        return dict(evaluate({"model": forecast(loaded)}, clips, 10, 10, group=group)["model"].means)


def check(model: str, data_dir: str, out: Path) -> None:
    """Refuse what the training would stumble over, before the time is spent on anything else.

    Raises:
        click.UsageError: If the model is none of Moving MNIST, the digits are not there, or the results are.
    """
    if out.exists():
        raise click.UsageError(f"--out {out} is there already: give a new folder")
    try:
        for split_name in ("train", "test"):
            create_dataset("mmnist", Path(data_dir), split_name, num_clips=1, num_frames=20)
        summary = summarize(model)
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from error
    if summary.input_shape != (10, 1, 64, 64) or summary.output_shape != summary.input_shape:
        raise click.UsageError(f"{model} is not of Moving MNIST: {summary.input_shape} -> {summary.output_shape}")


@click.command()
@click.option("--minutes", default=9.0, show_default=True, help="For all of it.")
@click.option("--data-dir", required=True, help="Folder of the digits' files.")
@click.option("--out", required=True, type=Path, help="Folder of the results; a new one.")
@click.option(
    "--device",
    "device_name",
    type=click.Choice(["auto", "cuda", "cpu"]),
    default="auto",
    show_default=True,
    help="Of several GPUs the first; CUDA_VISIBLE_DEVICES names another.",
)
@click.option("--model", default="plasm_mmnist", show_default=True, help="What is trained, on Moving MNIST.")
@click.option("--shard-mb", type=click.IntRange(1), help="Split the weights into parts of so many MB.")
def main(minutes: float, data_dir: str, out: Path, device_name: str, model: str, shard_mb: int | None) -> None:
    """Use a GPU for MINUTES."""
    started, whole = time.monotonic(), 60 * minutes
    check(model, data_dir, out)
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
    folder = export(run_folder, out)
    note("error", error(folder, data_dir, device))
    if shard_mb is not None:
        note("parts", [part.name for part in split(folder / "model.safetensors", shard_mb * 10**6)])


if __name__ == "__main__":
    main()
