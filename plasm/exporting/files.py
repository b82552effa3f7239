"""Writing models as ONNX and in torch's own formats.

Shapes: B clips, T input frames, T' output frames, C input and C' output channels, H x W pixels.
"""

import copy
import importlib
import importlib.util
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from plasm import weights
from plasm._version import __version__
from plasm.files import check_writable, require
from plasm.models import ModelInterface, forecasting

from .checking import check_file, sample_clips
from .engines import Engine, ExportedModel, load_exported
from .float16 import make_room
from .metadata import write_metadata
from .origin import remember

Format = Literal["onnx", "pt2", "aoti"]
FORMATS: tuple[str, ...] = get_args(Format)
OPSET = 20
"""Of the ONNX files: what onnxruntime 1.17 and its like of other makers know, and later ones."""
_LARGEST_SIDE, _LARGEST_BATCH = 8192, 4096
_SUFFIXES: dict[str, str] = {"onnx": ".onnx", "pt2": ".pt2", "aoti": ".pt2"}


@dataclass(frozen=True)
class Exported:
    """A file that was exported.

    Attributes:
        file: Where.
        metadata: Of the file.
        difference: The largest difference from eager, in the units of the output.
        range: The largest value of the output less the smallest, over the clips that it was checked on.
    """

    file: Path
    metadata: dict[str, str]
    difference: float
    range: float


def export(
    model: nn.Module,
    file: Path | str,
    format: Format | str = "onnx",
    *,
    num_frames: int | None = None,
    size: tuple[int, int] | None = None,
    half: bool = False,
    dynamic_size: bool = False,
    clips: Tensor | None = None,
    license: str | None = None,
    engines: Sequence[Engine] | None = None,
    record: bool = True,
) -> Exported:
    """Write a model as one graph, clip -> frames, which is kept only if it computes what the model computes.

    The graph takes ``clip``, float32 (B, T, C, H, W) with pixels in [0, 1], any B, and gives ``frames``, float32
    (B, T', C', H, W), not clamped. At a fixed H and W, any that the model takes, it pads by itself. With
    ``dynamic_size`` H and W are multiples of the model's ``size_multiple``, from twice it on: whoever calls it pads
    with zeros at the bottom and the right, and crops.

    The file's metadata says the name of the model and the sha256 of its weights, their license, frame counts, channels,
    sizes, range of values, the difference from eager, the versions of plasm and torch, and whether the model goes on
    after T' frames by feeding them back, as the loaded file does: ``metadata_props`` of ONNX, ``extra/plasm.json`` of
    the archive that a .pt2 file is.

    Args:
        model: Of plasm, or any that maps clips so and has ``in_frames``, ``out_frames`` and ``in_chans``; of a compiled
            one, the model that was compiled.
        file: .onnx for "onnx", or .pt2.
        format: "onnx", by torch's exporter, opset 20; "pt2", by ``torch.export.save``; "aoti", compiled by
            AOTInductor for machines like this one.
        num_frames: T' of the graph, any: the rollout of ``predict``; the model's own by default.
        size: H and W; by default those of the model's configuration. With ``dynamic_size`` what it is checked at.
        half: Store the weights and compute in half precision, after ``float16.make_room``; input and output stay
            float32.
        dynamic_size: Take any H and W.
        clips: What to check on, (B, T, C, H, W) with B of 3 or more; by default real clips of the package, made fit.
        license: Of the weights; by default what the manifest of published weights says.
        engines: What an .onnx file is checked in: "onnxruntime", "openvino"; by default all that are installed.
        record: Note in ``record_file()`` that this user exported the file on this machine: others are loaded only with
            trust.

    Raises:
        ExportError: If the file's output differs from eager's by more than 1e-3 of its range, in one of the engines,
            for one clip or for three, or with ``dynamic_size`` for a size that is no multiple. Nothing is left then.
        ImportError: If something is missing: ``pip install 'plasm-video[onnx]'``.
        OSError: If the file cannot be written, or "aoti" finds no C++ compiler.
        ValueError: If an argument is wrong.
    """
    file, model = Path(file), weights.unwrapped(model)
    if clips is not None and len(clips) < 3:
        raise ValueError(f"clips to check on are 3 or more, got {len(clips)}")
    _check_arguments(file, format, num_frames)
    size = size or _own_size(model)
    _check_size(model, size, dynamic_size)
    with forecasting(model):
        eager = copy.deepcopy(model).cpu().float().eval()
        clips = sample_clips(model, size) if clips is None else clips.float().cpu()
        traced = copy.deepcopy(eager)
        if half:
            make_room(traced, clips)
        graph = _Forecast(traced, num_frames, half)
        shapes = {"clip": _dynamic_shapes(model, dynamic_size)}
        program = torch.export.export(graph.eval(), (clips[:2],), dynamic_shapes=shapes)
        metadata = _describe(model, format, num_frames, size, half, dynamic_size, license)
        file.parent.mkdir(parents=True, exist_ok=True)
        # Beside the file, so that it can be renamed; torch wants to see the suffix.
        with tempfile.TemporaryDirectory(prefix=".export-", dir=file.parent) as folder:
            beside = Path(folder) / file.name
            _WRITERS[format](program, beside)
            write_metadata(beside, metadata)
            used = _engines(format, engines)
            checks = _checks(model, clips, dynamic_size)
            difference, spread = check_file(
                beside, _Forecast(eager, num_frames, False), checks, used, f"{file} was not kept"
            )
            metadata |= {
                "max_difference": f"{difference:.3g}",
                "output_range": f"{spread:.4g}",
                "checked_in": ", ".join(
                    f"{name} {importlib.import_module(name).__version__}" for name in used or ("torch",)
                ),
            }
            write_metadata(beside, metadata)
            beside.replace(file)
    if record:
        remember(file)
    return Exported(file, metadata, difference, spread)


def through_onnx(
    model: nn.Module, size: tuple[int, int], num_frames: int | None = None, engine: Engine = "onnxruntime"
) -> ExportedModel:
    """A model as onnxruntime or OpenVINO runs it: exported, checked, loaded, and no file left.

    Args:
        model: As for ``export``.
        size: H and W of the clips that it will get.
        num_frames: T'; the model's own by default.
        engine: What runs it, on as many threads as torch has now.

    Raises:
        ExportError: As ``export`` raises it.
        ImportError: If something is missing: ``pip install 'plasm-video[onnx]'``.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        export(model, file, num_frames=num_frames, size=size, engines=(engine,), record=False)
        return load_exported(file, engine=engine, trust=True)


class _Forecast(nn.Module):
    """The module that is traced: a forecast of a fixed number of frames, float32 in and out."""

    def __init__(self, model: nn.Module, num_frames: int | None, half: bool) -> None:
        super().__init__()
        self.model = model.half() if half else model
        self.dtype, self.num_frames = (torch.float16 if half else torch.float32), num_frames

    def forward(self, clip: Tensor) -> Tensor:
        clip = clip.to(self.dtype)
        model: Any = self.model
        frames: Tensor = model(clip) if self.num_frames is None else model.predict(clip, self.num_frames)
        return frames.float()


def _check_arguments(file: Path, format: str, num_frames: int | None) -> None:
    if format not in FORMATS:
        raise ValueError(f"format is one of {', '.join(FORMATS)}, got {format!r}")
    if file.suffix != _SUFFIXES[format]:
        raise ValueError(f"a file of the format {format} ends in {_SUFFIXES[format]}, got {file}")
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"num_frames must be positive, got {num_frames}")
    check_writable(file)
    if format == "onnx":
        for name in ("onnx", "onnxruntime", "onnxscript"):
            require(name)
    if format == "aoti":
        _check_compiler()


def _check_size(model: nn.Module, size: tuple[int, int], dynamic: bool) -> None:
    if min(size) < 1:
        raise ValueError(f"size is a height and a width of a pixel or more, got {size[0]} and {size[1]}")
    if dynamic and not ModelInterface.of(model).dynamic_size:
        raise ValueError(
            f"a graph of this {type(model).__name__} has a fixed height and width: give size, no dynamic_size"
        )
    multiple = ModelInterface.of(model).size_multiple
    if dynamic and any(side < 2 * multiple or side % multiple for side in size):
        # Torch takes a dimension that is one multiple for a constant.
        raise ValueError(
            f"with dynamic_size, size is a multiple of {multiple} from {2 * multiple} on, got {size[0]} and {size[1]}"
        )


def _check_compiler() -> None:
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "cl"]
    if not any(shutil.which(name) for name in wanted):
        raise FileNotFoundError(
            f"the format aoti needs a C++ compiler, and there is none ({', '.join(wanted)}): install one (Debian: "
            "apt-get install g++), or name it in the environment variable CXX"
        )


def _own_size(model: nn.Module) -> tuple[int, int]:
    cfg = ModelInterface.of(model).pretrained_cfg
    if "input_size" not in cfg:
        raise ValueError(f"{type(model).__name__} has no configuration that says its input's size: give size=(H, W)")
    return tuple(cfg["input_size"][1:])


def _dynamic_shapes(model: nn.Module, dynamic_size: bool) -> dict[int, Any]:
    shapes: dict[int, Any] = {0: Dim("batch", min=1, max=_LARGEST_BATCH)}
    if dynamic_size:
        multiple = ModelInterface.of(model).size_multiple
        # A side of length 1 would be a constant to torch.
        height, width = (Dim(name, min=2, max=_LARGEST_SIDE // multiple) for name in ("height", "width"))
        shapes |= {3: multiple * height, 4: multiple * width}
    return shapes


def _write_onnx(program: ExportedProgram, file: Path) -> None:
    import onnx

    with warnings.catch_warnings():
        # About versions of its own operators.
        warnings.simplefilter("ignore")
        written = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, input_names=["clip"], output_names=["frames"], verbose=False
        )
    if written is None:
        raise RuntimeError("torch.onnx.export gave nothing")
    written.save(file, external_data=False)
    onnx.checker.check_model(file, full_check=True)


def _write_pt2(program: ExportedProgram, file: Path) -> None:
    # A program needs no sample, which would be a pickle.
    program._example_inputs = None  # torch 2.6 lets no None through the property
    torch.export.save(program, file)


_WRITERS: dict[str, Callable[[ExportedProgram, Path], object]] = {
    "onnx": _write_onnx,
    "pt2": _write_pt2,
    "aoti": lambda program, file: torch._inductor.aoti_compile_and_package(program, package_path=str(file)),
}


def _describe(
    model: Any,
    format: str,
    num_frames: int | None,
    size: tuple[int, int],
    half: bool,
    dynamic: bool,
    license: str | None,
) -> dict[str, str]:
    sha256, published = _weights_of(model)
    cfg = ModelInterface.of(model).pretrained_cfg
    # Of other arguments, the same weights make a model of which nothing is published.
    known = published is not None and weights.made_as_published(model, published)
    return {
        "plasm": __version__,
        "torch": torch.__version__,
        "format": f"onnx, opset {OPSET}" if format == "onnx" else format,
        "model": published.name if published and known else str(cfg.get("architecture", type(model).__name__)),
        "weights_sha256": sha256,
        "license": license or (published.license if published else "not stated"),
        "layout": "clip (B, T, C, H, W) -> frames (B, T', C', H, W)",
        "in_frames": str(model.in_frames),
        "out_frames": str(num_frames or model.out_frames),
        "in_chans": str(model.in_chans),
        "out_chans": str(ModelInterface.of(model).out_chans),
        "height": str(size[0]),
        "width": str(size[1]),
        "dynamic_size": str(dynamic).lower(),
        "size_multiple": str(ModelInterface.of(model).size_multiple),
        "dtype": "float32",
        "weights_dtype": "float16" if half else "float32",
        "value_range": "0 to 1; output not clamped",
        "feeds_back": str(_feeds_back(model, num_frames or model.out_frames)).lower(),
    }


def _feeds_back(model: nn.Module, num_frames: int) -> bool:
    """Whether what so many frames of a graph, fed back to it, give next is what the model itself would predict."""
    interface = ModelInterface.of(model)
    if interface.predict is None:
        return True  # The model itself predicts no more.
    return interface.feedback_frames is not None and num_frames % interface.feedback_frames == 0


def _weights_of(model: nn.Module) -> tuple[str, weights.Entry | None]:
    """The sha256 of the file that the weights came from, if they are still its, and its row of the manifest.

    Of other weights, the sha256 of the safetensors file that they would make.
    """
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    cfg = ModelInterface.of(model).pretrained_cfg
    file = Path(cfg.get("file") or "")
    if file.suffix == ".safetensors" and file.is_file():
        tensors = weights.load_tensors(file)
        if tensors.keys() == state.keys() and all(torch.equal(tensors[k].to(t.dtype), t) for k, t in state.items()):
            sha256 = weights.file_sha256(file)
            return sha256, next((row for row in weights.entries() if row.sha256 == sha256), None)
    return weights.tensors_sha256(state), None


def _checks(model: nn.Module, clips: Tensor, dynamic_size: bool) -> list[Tensor]:
    """Batches of one clip and of three; where the size is dynamic also of another, which needs padding if any does."""
    checks = [clips[:1], clips[:3]]
    if dynamic_size:
        multiple = ModelInterface.of(model).size_multiple
        # A multiple would not show that the model pads as whoever calls the graph does.
        lacking = 1 if multiple > 1 else 0
        height, width = (max(2, side // multiple - 1) * multiple - lacking for side in clips.shape[-2:])
        checks.append(clips[:2, ..., :height, :width].contiguous())
    return checks


def _engines(format: str, wanted: Sequence[Engine] | None) -> tuple[Engine, ...]:
    """Engines that a file is checked in; empty where torch runs it."""
    if format != "onnx":
        return ()
    known: tuple[Engine, ...] = get_args(Engine)
    if wanted is None:
        return tuple(name for name in known if importlib.util.find_spec(name) is not None)
    if not wanted or (unknown := [name for name in wanted if name not in known]):
        raise ValueError(f"engines are {', '.join(known)}, got {', '.join(map(repr, unknown)) if wanted else 'none'}")
    return tuple(wanted)
