"""What models cost, measured side by side: parameters, multiply-adds, clips a second, memory, share of the peak.

All models of a call are timed in turn, round after round, so that whatever else the machine does meets all of them; a
large matrix product is timed with them, and what they reach of it does not depend on how busy the machine was.

Shapes: B clips, T input frames, T' output frames, C image channels, H x W pixels.
"""

import csv
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from plasm import weights
from plasm.exporting import through_onnx
from plasm.models import make_task
from plasm.models.summary import summarize
from plasm.tasks import total_loss

__all__ = ["RUNTIMES", "Measurement", "Published", "measure", "picture", "published", "read_csv", "table", "write_csv"]

Step = Callable[[], Any]

RUNTIMES: dict[str, Callable[[nn.Module, Tensor], Callable[[Tensor], Tensor]]] = {
    "eager": lambda model, clip: model,
    "compile": lambda model, clip: torch.compile(model),
    "onnx": lambda model, clip: through_onnx(model, (clip.shape[-2], clip.shape[-1])),
    "openvino": lambda model, clip: through_onnx(model, (clip.shape[-2], clip.shape[-1]), engine="openvino"),
}
"""By name: maps a model and a clip of the size it will get to what is called in the model's place."""

_EXPORTED = ("onnx", "openvino")

EPOCH_CLIPS = 10_000  # what published lengths of training on Moving MNIST are counted in
PUBLISHED = Path(__file__).with_name("published.csv")


@dataclass(frozen=True)
class Measurement:
    """A row of the table.

    Attributes:
        model: Constructor.
        mode: "inference", a forward pass without gradient; or "training", a step with Adam.
        runtime: Of ``RUNTIMES``.
        device: Its type.
        hardware: Name of the GPU, or the instruction set that torch uses of the CPU.
        torch: Its version.
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
        threads: Of the CPU.
        difference: The largest difference of the runtime's output from eager's, NaN for training.
    """

    model: str
    mode: str
    runtime: str
    device: str
    hardware: str
    torch: str
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
    threads: int
    difference: float


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
        whose: Who reports it, in a word or two.
        source: Where the numbers stand.
    """

    model: str
    epochs: int | None
    mse: float
    mae: float | None
    ssim: float | None
    parameters: float | None
    multiply_adds: float | None
    whose: str
    source: str


def published() -> list[Published]:
    """The rows of published.csv."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = ("mae", "ssim", "parameters", "multiply_adds")
    return [
        Published(
            model=row["model"],
            epochs=int(row["epochs"]) if row["epochs"] else None,
            mse=float(row["mse"]),
            whose=row["whose"],
            source=row["source"],
            **{name: float(row[name]) if row[name] else None for name in numbers},
        )
        for row in rows
    ]


def measured_here() -> dict[str, weights.Entry]:
    """For the name of a constructor, its default weights, where they were measured on Moving MNIST."""
    rows = [row for row in weights.entries() if row.data == "mmnist" and "mse" in row.metrics]
    return {row.model: row for row in reversed(rows)}


def measure(
    models: Sequence[str],
    device: torch.device,
    batch_size: int = 4,
    train: bool = False,
    dtype: torch.dtype = torch.float32,
    runtime: str | Sequence[str] = "eager",
    rounds: int = 5,
    model_args: dict[str, Any] | None = None,
    threads: Sequence[int] = (),
) -> list[Measurement]:
    """Time models in turn, at their own input sizes, with random weights and clips, channels last in memory.

    Args:
        models: Constructors. All are held at once.
        device: Where.
        batch_size: B.
        train: Time training steps as well.
        dtype: float32, or what autocast goes to.
        runtime: Of ``RUNTIMES``, one or several; training is eager or compiled. "onnx" and "openvino" are on the CPU,
            in float32, and their memory is not seen.
        rounds: How often; one more comes before them and warms up.
        model_args: For every constructor.
        threads: Of the CPU, one number or several; those that torch has by default.

    Returns:
        A row a model, number of threads, runtime and mode, in this order.

    Raises:
        ValueError: If there is no such runtime, or a number is not positive.
    """
    runtimes = (runtime,) if isinstance(runtime, str) else tuple(runtime)
    _check(runtimes, device, dtype, batch_size, rounds, threads)
    counts = tuple(threads) or (torch.get_num_threads(),)
    before = torch.get_num_threads()
    cases: dict[_Case, Step] = {}
    memory: dict[_Case, int] = {}
    differences: dict[_Case, float] = {}
    models_of = {name: timm.create_model(name, **(model_args or {})) for name in models}
    product, operations = _matrix_product(device, dtype)
    try:
        for name, count, used in itertools.product(models, counts, runtimes):
            torch.set_num_threads(count)
            model = models_of[name].to(device, memory_format=torch.channels_last)
            steps, difference = _steps(model, device, batch_size, dtype, used, train)
            for mode, step in steps.items():
                case = _Case(name, count, used, mode)
                cases[case] = step
                step()  # compiles, and makes the optimizer's state
                memory[case] = peak_memory(step, device)
                differences[case] = difference if mode == "inference" else float("nan")
        timed = [(count, product) for count in counts] + [(case.threads, step) for case, step in cases.items()]
        seconds = _in_turn(timed, rounds, device)
    finally:
        torch.set_num_threads(before)
    peaks = {count: [operations / taken for taken in each] for count, each in zip(counts, seconds, strict=False)}
    summaries = {name: summarize(name, **(model_args or {})) for name in models}
    rows = []
    for case, taken in zip(cases, seconds[len(counts) :], strict=True):
        summary = summaries[case.model]
        speeds = [batch_size / each for each in taken]
        work = 2 * summary.multiply_adds * (3 if case.mode == "training" else 1)
        shares = [speed * work / peak for speed, peak in zip(speeds, peaks[case.threads], strict=True)]
        median = statistics.median(speeds)
        rows.append(
            Measurement(
                case.model, case.mode, case.runtime, device.type, _hardware(device), torch.__version__,
                str(dtype).removeprefix("torch."), batch_size, summary.parameters, summary.multiply_adds, median,
                min(speeds), max(speeds), median * models_of[case.model].out_frames, memory[case],
                statistics.median(shares), case.threads, differences[case],
            )
        )  # fmt: skip
    return rows


def _hardware(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()


class _Case(NamedTuple):
    model: str
    threads: int
    runtime: str
    mode: str


def _check(
    runtimes: Sequence[str],
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int,
    rounds: int,
    threads: Sequence[int],
) -> None:
    if unknown := [name for name in runtimes if name not in RUNTIMES]:
        raise ValueError(f"runtime is one of {', '.join(RUNTIMES)}, got {', '.join(map(repr, unknown))}")
    if batch_size < 1 or rounds < 1 or any(count < 1 for count in threads):
        raise ValueError(
            f"batch size, rounds and threads must be positive, got {batch_size}, {rounds} and {tuple(threads)}"
        )
    exported = [name for name in runtimes if name in _EXPORTED]
    if exported and (device.type != "cpu" or dtype != torch.float32):
        raise ValueError(f"{', '.join(exported)}: measured on the CPU and in float32 only")


def write_csv(rows: Iterable[Measurement], file: Path) -> None:
    """Write measurements as a table."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Measurement)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def read_csv(file: Path) -> list[Measurement]:
    """Read what ``write_csv`` wrote.

    Raises:
        ValueError: If it is no such table.
    """
    with file.open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    kinds: dict[str, Any] = {field.name: field.type for field in fields(Measurement)}
    try:
        return [Measurement(**{name: kind(line[name]) for name, kind in kinds.items()}) for line in lines]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is no table of plasm benchmark ({error!r}): measure again") from error


def table(rows: Iterable[Measurement]) -> list[tuple[str, ...]]:
    """Measurements to read: a line of titles, then one a row.

    Beside each model stand the errors that others published of the same architecture, and that of the weights in the
    manifest; of these the test clips are ours.
    """
    errors = {(row.model, row.epochs): row for row in published()}
    own = measured_here()
    lines: list[tuple[str, ...]] = [
        ("model", "mode", "runtime", "threads", "from eager", "M", "G", "clips/s", "range", "frames/s", "MB",
         "of peak", "published, 200 epochs (whose)", "published, 2,000 epochs (whose)",
         "measured here (weights, clips)")
    ]  # fmt: skip
    for row in rows:
        found = [errors.get((row.model, epochs)) for epochs in (200, 2000)]
        weight = own.get(row.model)
        lines.append(
            (
                row.model,
                row.mode,
                row.runtime,
                str(row.threads),
                f"{row.difference:.1g}",
                f"{row.parameters / 1e6:.2f}",
                f"{row.multiply_adds / 1e9:.2f}",
                f"{row.clips_per_second:.2f}",
                f"{row.lowest:.2f}-{row.highest:.2f}",
                f"{row.frames_per_second:.1f}",
                f"{row.peak_memory / 2**20:.0f}",
                f"{row.share:.0%}",
                *(f"{error.mse:.2f} ({error.whose})" if error else "-" for error in found),
                f"{weight.metrics['mse']:.2f} ({weight.tag}, {weight.clips:,})" if weight else "-",
            )
        )
    return lines


class _Point(NamedTuple):
    x: float
    mse: float
    label: str
    measured: bool


def picture(rows: Sequence[Measurement], file: Path) -> None:
    """Draw error against multiply-adds and against measured clips a second, of inference, a row for each length.

    Published errors are circles, at the multiply-adds that their source reports, and stand in a row for each length of
    training: lengths are not to be compared. Errors measured here are stars, in a row of their own.

    Args:
        rows: Of which those of models with a published or measured error are drawn.
        file: PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    # Of several runtimes, the first.
    measured = {row.model: row for row in reversed(rows) if row.mode == "inference"}
    panels: dict[str, list[tuple[str, float, float | None, bool]]] = {}
    for point in published():
        if point.model in measured:
            length = f"{point.epochs:,} epochs" if point.epochs else "a length not given"
            panels.setdefault(f"published, {length}", []).append((point.model, point.mse, point.multiply_adds, False))
    for model, weight in measured_here().items():
        if model in measured:
            panels.setdefault("measured here, clips as in the label", []).append(
                (f"{model} ({weight.clips:,})", weight.metrics["mse"], None, True)
            )
    panels = dict(sorted(panels.items(), key=lambda panel: ("measured" in panel[0], len(panel[0])))) or {
        "no model with a known error": []
    }
    figure = Figure(figsize=(13, 5 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(panels), 2, squeeze=False)
    for axes, (title, points) in zip(grid, panels.items(), strict=True):
        for axis, by_cost in zip(axes, (True, False), strict=True):
            drawn = []
            for label, mse, reported, own in points:
                row = measured[label.partition(" ")[0]]
                cost = reported if reported is not None else row.multiply_adds / 1e9
                drawn.append(_Point(cost if by_cost else row.clips_per_second, mse, label, own))
            axis.set(
                xlabel="multiply-adds of a clip (G)" if by_cost else "clips a second of plasm's model, measured here",
                ylabel="MSE, Moving MNIST", title=title, xscale="log",
            )  # fmt: skip
            # Names stay within the axes, and numbers within a decade are few and plain.
            axis.margins(x=0.3, y=0.15)
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.grid(alpha=0.3)
            for each in drawn:
                color = "tab:red" if each.label.startswith("plasm") else "tab:blue"
                axis.scatter(each.x, each.mse, color=color, s=90 if each.measured else 18,
                             marker="*" if each.measured else "o")  # fmt: skip
    figure.draw_without_rendering()
    for axes, points in zip(grid, panels.values(), strict=True):
        for axis in axes:
            _label(axis, [label.replace("_mmnist", "") for label, *_ in points])
    figure.savefig(file, dpi=110)


def _label(axis: Any, labels: Sequence[str]) -> None:
    """Write a label beside each of the collections of an axis, where it covers no other label and no point."""
    from matplotlib.text import Text

    renderer = axis.figure.canvas.get_renderer()
    taken = [
        axis.transData.transform(collection.get_offsets())[0] + side for collection in axis.collections
        for side in ((-4, -4), (4, 4))
    ]  # fmt: skip
    boxes = [(*low, *high) for low, high in zip(taken[::2], taken[1::2], strict=True)]
    own = list(boxes)
    for collection, label, point in zip(axis.collections, labels, own, strict=True):
        place = collection.get_offsets()[0]
        for offset in _OFFSETS:
            text = axis.annotate(
                label, place, fontsize=8, xytext=offset, textcoords="offset points",
                ha="left" if offset[0] >= 0 else "right", va="center",
                arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "gray"} if max(map(abs, offset)) > 8 else None,
            )  # fmt: skip
            # An annotation's own extent has its line in it.
            text.update_positions(renderer)
            box = Text.get_window_extent(text).extents
            others = [each for each in boxes if each is not point]
            if not any(_overlap(box, each) for each in others) or offset == _OFFSETS[-1]:
                boxes.append(tuple(box))
                break
            text.remove()


# Where a label may stand from its point, in points, the nearest first.
_OFFSETS = [
    (side * x, sign * y)
    for x, y in sorted(((x, y) for x in (6, 14, 26, 40, 60) for y in range(0, 90, 8)), key=lambda place: sum(place))
    for sign in ((1, -1) if y else (1,))
    for side in (1, -1)
]


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two boxes (left, bottom, right, top) share a place."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


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
) -> tuple[dict[str, Step], float]:
    """What is timed of a model, by mode, and how far the runtime is from eager."""
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

    with torch.no_grad(), autocast():
        difference = (predict(clip).float() - model(clip).float()).abs().max().item()
    if not train or runtime in _EXPORTED:
        return {"inference": infer}, difference
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    compiled: Any = predict
    task = make_task(model.pretrained_cfg["architecture"], compiled)
    clips, index = torch.cat([clip, target], 1), torch.arange(batch_size, device=device)

    def step() -> None:
        task.train()
        with autocast():
            losses, _ = task(clips, index, 0, 0)
            loss = total_loss(losses)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return {"inference": infer, "training": step}, difference


def _matrix_product(device: torch.device, dtype: torch.dtype) -> tuple[Step, int]:
    """A product that takes a while, and how many floating point operations it is."""
    size, repeats = (1024, 20) if device.type == "cpu" else (8192, 20)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def run() -> None:
        for _ in range(repeats):
            torch.mm(a, b)

    return run, 2 * size**3 * repeats


def _in_turn(steps: Sequence[tuple[int, Step]], rounds: int, device: torch.device) -> list[list[float]]:
    """Seconds of each step, with its number of threads, in each round; what one round makes of it serves to warm up."""
    seconds: list[list[float]] = [[] for _ in steps]
    for number in range(rounds + 1):
        for (threads, step), taken in zip(steps, seconds, strict=True):
            torch.set_num_threads(threads)
            started = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number:
                taken.append(time.perf_counter() - started)
    return seconds
