"""Cost of models, measured side by side: parameters, MACs, clips a second, memory, ratio to the peak.

Shapes: B clips, T input frames, T' output frames, C image channels, H x W pixels.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from plasm.devices import move
from plasm.exporting import through_onnx
from plasm.models import ModelSummary, create_model, create_task, summarize
from plasm.tasks import FramePrediction, total_loss

from .timing import Step, in_turn, matrix_product, peak_memory

RUNTIMES: dict[str, Callable[[nn.Module, Tensor], Callable[[Tensor], Tensor]]] = {
    "eager": lambda model, clip: model,
    "compile": lambda model, clip: torch.compile(model),
    "onnx": lambda model, clip: through_onnx(model, (clip.shape[-2], clip.shape[-1])),
    "openvino": lambda model, clip: through_onnx(model, (clip.shape[-2], clip.shape[-1]), engine="openvino"),
}
"""By name: maps a model and a clip of the size it will get to what is called in the model's place."""
_EXPORTED = ("onnx", "openvino")


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
        macs: Of one clip's forward pass.
        clips_per_second: Median of the rounds.
        lowest: Of the rounds' clips a second.
        highest: Of them.
        frames_per_second: Predicted frames: T' times the clips.
        peak_memory: Bytes of torch's tensors at once, beside parameters and input.
        peak_ratio: Floating point operations a second, over those of a large matrix product, median of the rounds. A
            training step counts as three forward passes.
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
    macs: int
    clips_per_second: float
    lowest: float
    highest: float
    frames_per_second: float
    peak_memory: int
    peak_ratio: float
    threads: int
    difference: float


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
        runtime: Of ``RUNTIMES``, one or several; training is eager or compiled, and of a model that its task unrolls
            eager alone. "onnx" and "openvino" are on the CPU, in float32, and their memory is not seen.
        rounds: How often; one more comes before them and warms up.
        model_args: For every constructor.
        threads: Of the CPU, one number or several; those that torch has by default.

    Returns:
        A row a model, number of threads, runtime and mode, in this order.

    Raises:
        ValueError: If there is no such model, argument or runtime, or a number is not positive.
    """
    runtimes = (runtime,) if isinstance(runtime, str) else tuple(dict.fromkeys(runtime))
    if unknown := [name for name in runtimes if name not in RUNTIMES]:
        raise ValueError(f"runtime is one of {', '.join(RUNTIMES)}, got {', '.join(map(repr, unknown))}")
    if batch_size < 1 or rounds < 1 or any(count < 1 for count in threads):
        raise ValueError(
            f"batch size, rounds and threads must be positive, got {batch_size}, {rounds} and {tuple(threads)}"
        )
    exported = [name for name in runtimes if name in _EXPORTED]
    if exported and (device.type != "cpu" or dtype != torch.float32):
        raise ValueError(f"{', '.join(exported)}: measured on the CPU and in float32 only")
    counts = tuple(dict.fromkeys(threads)) or (torch.get_num_threads(),)
    built = {name: create_model(name, **(model_args or {})) for name in models}
    setting = _Setting(device, dtype, batch_size)
    product, operations = matrix_product(device, dtype)
    before = torch.get_num_threads()
    try:
        with _many_graphs() if "compile" in runtimes else nullcontext():
            cases = [
                case
                for name, count, used in itertools.product(built, counts, runtimes)
                for case in _cases(name, move(built[name], device), setting, count, used, train)
            ]
            timed = [(count, product) for count in counts] + [(case.threads, case.step) for case in cases]
            seconds = in_turn(timed, rounds, device)
    finally:
        torch.set_num_threads(before)
    peaks = {count: [operations / taken for taken in each] for count, each in zip(counts, seconds, strict=False)}
    summaries = {name: summarize(name, **(model_args or {})) for name in models}
    return [
        _row(case, summaries[case.model], built[case.model].out_frames, setting, taken, peaks[case.threads])
        for case, taken in zip(cases, seconds[len(counts) :], strict=True)
    ]


def _row(
    case: "_Case", summary: ModelSummary, frames: int, setting: "_Setting", taken: list[float], peaks: list[float]
) -> Measurement:
    """A row of the table: what a case took in each round, beside the machine's floating point operations a second."""
    device, dtype, batch_size = setting
    cuda = device.type == "cuda"
    speeds = [batch_size / each for each in taken]
    work = 2 * summary.macs * (3 if case.mode == "training" else 1)
    median = statistics.median(speeds)
    return Measurement(
        model=case.model, mode=case.mode, runtime=case.runtime, device=device.type,
        hardware=torch.cuda.get_device_name(device) if cuda else torch.backends.cpu.get_cpu_capability(),
        torch=torch.__version__, dtype=str(dtype).removeprefix("torch."), batch_size=batch_size,
        parameters=summary.parameters, macs=summary.macs,
        clips_per_second=median, lowest=min(speeds), highest=max(speeds), frames_per_second=median * frames,
        peak_memory=case.memory,
        peak_ratio=statistics.median(speed * work / peak for speed, peak in zip(speeds, peaks, strict=True)),
        threads=case.threads, difference=case.difference,
    )  # fmt: skip


def _many_graphs() -> AbstractContextManager[None]:
    """Lets torch keep a graph of every model: after eight of code that they share it would go on eagerly, unsaid."""
    import torch._dynamo  # of a second's imports, for this alone

    changed: AbstractContextManager[None] = torch._dynamo.config.patch(
        cache_size_limit=1 << 16, accumulated_cache_size_limit=1 << 16
    )
    return changed


class _Setting(NamedTuple):
    """What all cases share."""

    device: torch.device
    dtype: torch.dtype
    batch_size: int


class _Case(NamedTuple):
    """What is timed, and what is known of it before."""

    model: str
    threads: int
    runtime: str
    mode: str
    step: Step
    memory: int
    difference: float


def _cases(name: str, model: Any, setting: _Setting, threads: int, runtime: str, train: bool) -> Iterator[_Case]:
    """The cases of a model in one runtime, with that many threads, warm."""
    torch.set_num_threads(threads)
    steps, difference = _steps(model, setting, runtime, train)
    for mode, step in steps.items():
        step()  # compiles, and makes the optimizer's state
        memory = peak_memory(step, setting.device)
        yield _Case(name, threads, runtime, mode, step, memory, difference if mode == "inference" else math.nan)


def _steps(model: Any, setting: _Setting, runtime: str, train: bool) -> tuple[dict[str, Step], float]:
    """The steps of a model to time, by mode, and the largest difference of the runtime from eager."""
    device, dtype, batch_size = setting
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
    compiled: Any = predict
    task = create_task(model.pretrained_cfg["architecture"], compiled)
    if isinstance(task, FramePrediction) and predict is not model:
        return {"inference": infer}, difference  # it trains by steps that nothing compiles
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
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
