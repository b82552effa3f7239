"""What models cost, measured side by side: parameters, multiply-adds, clips a second, memory, share of the peak.

All models of a call are timed in turn, round after round, so that whatever else the machine does meets all of them; a
large matrix product is timed with them, and what they reach of it does not depend on how busy the machine was.

Shapes: B clips, T input frames, T' output frames, C image channels, H x W pixels.
"""

import csv
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plasm import weights
from plasm.models.summary import summarize

__all__ = ["RUNTIMES", "Measurement", "Published", "measure", "picture", "published", "write_csv"]

Step = Callable[[], Any]

RUNTIMES: dict[str, Callable[[nn.Module, Tensor], Callable[[Tensor], Tensor]]] = {
    "eager": lambda model, clip: model,
    "compile": lambda model, clip: torch.compile(model),
}
"""By name: maps a model and a clip of the size it will get to what is called in the model's place."""

PUBLISHED = Path(__file__).with_name("published.csv")


@dataclass(frozen=True)
class Measurement:
    """A row of the table.

    Attributes:
        model: Constructor.
        mode: "inference", a forward pass without gradient; or "training", a step with Adam.
        runtime: Of ``RUNTIMES``.
        device: Its type.
        dtype: "float32", or "bfloat16" or "float16", to which autocast goes.
        batch_size: B.
        parameters: How many.
        multiply_adds: Of one clip's forward pass.
        clips_per_second: Median of the rounds.
        lowest: Of the rounds' clips a second.
        highest: Of them.
        frames_per_second: Predicted frames: T' times the clips.
        peak_memory: Bytes of torch's tensors at once, beside parameters and input.
        share: Of the floating point operations a second of a large matrix product, median of the rounds. A training
            step counts as three forward passes.
    """

    model: str
    mode: str
    runtime: str
    device: str
    dtype: str
    batch_size: int
    parameters: int
    multiply_adds: int
    clips_per_second: float
    lowest: float
    highest: float
    frames_per_second: float
    peak_memory: int
    share: float


@dataclass(frozen=True)
class Published:
    """Quality as somebody reported it on Moving MNIST, 10 -> 10 frames.

    Attributes:
        model: Constructor of the same architecture.
        epochs: Of training, of 10,000 clips each; None if the source does not say.
        mse: Summed over the pixels of a frame.
        mae: Summed over the pixels of a frame.
        ssim: As its source computes it.
        parameters: In millions, as reported.
        multiply_adds: In billions, as reported.
        source: Where the numbers stand.
    """

    model: str
    epochs: int | None
    mse: float
    mae: float | None
    ssim: float | None
    parameters: float | None
    multiply_adds: float | None
    source: str


def published() -> list[Published]:
    """The rows of published.csv, and what was measured with the weights that plasm publishes."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = ("mae", "ssim", "parameters", "multiply_adds")
    reported = [
        Published(
            model=row["model"],
            epochs=int(row["epochs"]) if row["epochs"] else None,
            mse=float(row["mse"]),
            source=row["source"],
            **{name: float(row[name]) if row[name] else None for name in numbers},
        )
        for row in rows
    ]
    own = [
        Published(
            entry.model, entry.epochs, entry.metrics["mse"], entry.metrics.get("mae"),
            entry.metrics.get("ssim_published"), None, None, f"measured: {entry.name}",
        )
        for entry in weights.entries()
        if entry.data == "mmnist" and "mse" in entry.metrics
    ]  # fmt: skip
    return reported + own


def measure(
    models: Sequence[str],
    device: torch.device,
    batch_size: int = 4,
    train: bool = False,
    dtype: torch.dtype = torch.float32,
    runtime: str = "eager",
    rounds: int = 5,
    model_args: dict[str, Any] | None = None,
) -> list[Measurement]:
    """Time models in turn, at their own input sizes, with random weights and clips, channels last in memory.

    Args:
        models: Constructors. All are held at once.
        device: Where.
        batch_size: B.
        train: Time training steps as well.
        dtype: float32, or what autocast goes to.
        runtime: Of ``RUNTIMES``; training is eager or compiled.
        rounds: How often; one more comes before them and warms up.
        model_args: For every constructor.

    Returns:
        A row a model and mode, in the order of the models.

    Raises:
        ValueError: If there is no such runtime, or a number is not positive.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime is one of {', '.join(RUNTIMES)}, got {runtime!r}")
    if batch_size < 1 or rounds < 1:
        raise ValueError(f"batch size and rounds must be positive, got {batch_size} and {rounds}")
    steps: dict[tuple[str, str], Step] = {}
    frames: dict[str, int] = {}
    memory: dict[tuple[str, str], int] = {}
    for name in models:
        model = timm.create_model(name, **(model_args or {})).to(device, memory_format=torch.channels_last)
        frames[name] = model.out_frames
        for mode, step in _steps(model, device, batch_size, dtype, runtime, train).items():
            steps[name, mode] = step
            step()  # compiles, and makes the optimizer's state
            memory[name, mode] = peak_memory(step, device)
    product, operations = _matrix_product(device, dtype)
    seconds = _in_turn([product, *steps.values()], rounds, device)
    peaks = [operations / taken for taken in seconds[0]]
    summaries = {name: summarize(name, **(model_args or {})) for name in models}
    rows = []
    for (name, mode), taken in zip(steps, seconds[1:], strict=True):
        summary = summaries[name]
        speeds = [batch_size / each for each in taken]
        work = 2 * summary.multiply_adds * (3 if mode == "training" else 1)
        shares = [speed * work / peak for speed, peak in zip(speeds, peaks, strict=True)]
        median = statistics.median(speeds)
        rows.append(
            Measurement(
                name, mode, runtime, device.type, str(dtype).removeprefix("torch."), batch_size, summary.parameters,
                summary.multiply_adds, median, min(speeds), max(speeds), median * frames[name], memory[name, mode],
                statistics.median(shares),
            )
        )  # fmt: skip
    return rows


def write_csv(rows: Iterable[Measurement], file: Path) -> None:
    """Write measurements as a table."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Measurement)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def picture(rows: Sequence[Measurement], file: Path) -> None:
    """Draw error against multiply-adds and against measured clips a second, of inference, a row for each length.

    Errors of 200 epochs and of 2,000 stand in rows of their own: they are not to be compared.

    Args:
        rows: Of which those of models with a published or measured error are drawn.
        file: PNG to write.
    """
    from matplotlib.figure import Figure

    measured = {row.model: row for row in rows if row.mode == "inference"}
    points = [point for point in published() if point.model in measured]
    lengths = sorted({point.epochs or 0 for point in points}) or [0]
    figure = Figure(figsize=(11, 4.2 * len(lengths)), layout="constrained")
    grid = figure.subplots(len(lengths), 2, squeeze=False)
    for axes, epochs in zip(grid, lengths, strict=True):
        titles = "length of training not given" if epochs == 0 else f"{epochs:,} epochs of 10,000 clips"
        for axis, column, unit, label in (
            (axes[0], "multiply_adds", 1e9, "multiply-adds of a clip (G)"),
            (axes[1], "clips_per_second", 1, "clips a second, measured"),
        ):
            for point in (point for point in points if (point.epochs or 0) == epochs):
                place = (getattr(measured[point.model], column) / unit, point.mse)
                axis.scatter(*place, color="tab:red" if point.model.startswith("plasm") else "tab:blue", s=18)
                name = point.model.removesuffix("_mmnist")
                axis.annotate(name, place, fontsize=7, xytext=(3, 3), textcoords="offset points")
            axis.set(xlabel=label, ylabel="MSE, Moving MNIST", title=titles, xscale="log")
            axis.grid(alpha=0.3)
    figure.savefig(file, dpi=110)


def peak_memory(run: Step, device: torch.device) -> int:
    """Peak of the bytes that torch's allocator hands out during one run, temporaries included.

    On a CPU it is added up from the profiler's record of every allocation; scratch space inside oneDNN and the BLAS is
    not seen.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    # Its log would stand in the middle of the table.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    results: Any = profiler.profiler.kineto_results
    now = peak = 0
    for event in sorted((e for e in results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def _steps(
    model: Any, device: torch.device, batch_size: int, dtype: torch.dtype, runtime: str, train: bool
) -> dict[str, Step]:
    """What is timed of a model, by mode."""
    size = model.pretrained_cfg["input_size"][1:]
    clip = torch.rand(batch_size, model.in_frames, model.in_chans, *size, device=device)
    target = torch.rand(batch_size, model.out_frames, model.out_chans, *size, device=device)
    model.eval()
    predict = RUNTIMES[runtime](model, clip)

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16 if dtype is torch.float32 else dtype, dtype != torch.float32)

    def infer() -> None:
        model.eval()
        with torch.no_grad(), autocast():
            predict(clip)

    if not train:
        return {"inference": infer}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)

    def step() -> None:
        model.train()
        with autocast():
            if hasattr(model, "training_loss"):
                loss, _ = model.training_loss(clip, target, 0)
            else:
                loss = F.mse_loss(predict(clip).float(), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return {"inference": infer, "training": step}


def _matrix_product(device: torch.device, dtype: torch.dtype) -> tuple[Step, int]:
    """A product that takes a while, and how many floating point operations it is."""
    size, repeats = (1024, 20) if device.type == "cpu" else (8192, 20)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def run() -> None:
        for _ in range(repeats):
            torch.mm(a, b)

    return run, 2 * size**3 * repeats


def _in_turn(steps: Sequence[Step], rounds: int, device: torch.device) -> list[list[float]]:
    """Seconds of each step in each round; what one round makes of it serves to warm up."""
    seconds: list[list[float]] = [[] for _ in steps]
    for number in range(rounds + 1):
        for step, taken in zip(steps, seconds, strict=True):
            started = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number:
                taken.append(time.perf_counter() - started)
    return seconds
