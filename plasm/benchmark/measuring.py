"""Cost of models, measured side by side: parameters, MACs, clips a second, memory, ratio to the peak.

Shapes: B clips, T input frames, T' output frames, C image channels, H x W pixels.
"""

import itertools
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from plasm.devices import move
from plasm.exporting import through_onnx
from plasm.models import create_task, summarize
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
        ValueError: If there is no such runtime, or a number is not positive.
    """
    runtimes = (runtime,) if isinstance(runtime, str) else tuple(runtime)
    if unknown := [name for name in runtimes if name not in RUNTIMES]:
        raise ValueError(f"runtime is one of {', '.join(RUNTIMES)}, got {', '.join(map(repr, unknown))}")
    if batch_size < 1 or rounds < 1 or any(count < 1 for count in threads):
        raise ValueError(
            f"batch size, rounds and threads must be positive, got {batch_size}, {rounds} and {tuple(threads)}"
        )
    exported = [name for name in runtimes if name in _EXPORTED]
    if exported and (device.type != "cpu" or dtype != torch.float32):
        raise ValueError(f"{', '.join(exported)}: measured on the CPU and in float32 only")
    counts = tuple(threads) or (torch.get_num_threads(),)
    before = torch.get_num_threads()
    cases: dict[_Case, Step] = {}
    memory: dict[_Case, int] = {}
    differences: dict[_Case, float] = {}
    models_of = {name: timm.create_model(name, **(model_args or {})) for name in models}
    product, operations = matrix_product(device, dtype)
    try:
        with _many_graphs() if "compile" in runtimes else nullcontext():
            for name, count, used in itertools.product(models, counts, runtimes):
                torch.set_num_threads(count)
                model = move(models_of[name], device)
                steps, difference = _steps(model, device, batch_size, dtype, used, train)
                for mode, step in steps.items():
                    case = _Case(name, count, used, mode)
                    cases[case] = step
                    step()  # compiles, and makes the optimizer's state
                    memory[case] = peak_memory(step, device)
                    differences[case] = difference if mode == "inference" else float("nan")
            timed = [(count, product) for count in counts] + [(case.threads, step) for case, step in cases.items()]
            seconds = in_turn(timed, rounds, device)
    finally:
        torch.set_num_threads(before)
    peaks = {count: [operations / taken for taken in each] for count, each in zip(counts, seconds, strict=False)}
    summaries = {name: summarize(name, **(model_args or {})) for name in models}
    cuda = device.type == "cuda"
    hardware = torch.cuda.get_device_name(device) if cuda else torch.backends.cpu.get_cpu_capability()
    rows = []
    for case, taken in zip(cases, seconds[len(counts) :], strict=True):
        summary = summaries[case.model]
        speeds = [batch_size / each for each in taken]
        work = 2 * summary.macs * (3 if case.mode == "training" else 1)
        ratios = [speed * work / peak for speed, peak in zip(speeds, peaks[case.threads], strict=True)]
        median = statistics.median(speeds)
        rows.append(
            Measurement(
                case.model, case.mode, case.runtime, device.type, hardware, torch.__version__,
                str(dtype).removeprefix("torch."), batch_size, summary.parameters, summary.macs, median,
                min(speeds), max(speeds), median * models_of[case.model].out_frames, memory[case],
                statistics.median(ratios), case.threads, differences[case],
            )
        )  # fmt: skip
    return rows


def _many_graphs() -> AbstractContextManager[None]:
    """Lets torch keep a graph of every model: after eight of code that they share it would go on eagerly, unsaid."""
    import torch._dynamo  # of a second's imports, for this alone

    changed: AbstractContextManager[None] = torch._dynamo.config.patch(
        cache_size_limit=1 << 16, accumulated_cache_size_limit=1 << 16
    )
    return changed


class _Case(NamedTuple):
    model: str
    threads: int
    runtime: str
    mode: str


def _steps(
    model: Any, device: torch.device, batch_size: int, dtype: torch.dtype, runtime: str, train: bool
) -> tuple[dict[str, Step], float]:
    """The steps of a model to time, by mode, and the largest difference of the runtime from eager."""
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
