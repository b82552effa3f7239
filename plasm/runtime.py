"""Models that were exported to a file, as models: they predict and are measured as any other.

What ``plasm.export`` writes says itself what it is (``read_metadata``). ``load_exported`` makes a ``VideoModel`` of it,
whose ``forward`` runs the file in onnxruntime or torch.

Shapes: B clips, T input frames, T' output frames, C input and C' output channels, H x W pixels.
"""

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from plasm.models import VideoModel
from plasm.models.forecasting import forecasts

__all__ = ["METADATA", "Engine", "ExportedModel", "is_exported", "load_exported", "read_metadata"]

METADATA = "plasm.json"
"""What the metadata is called inside a .pt2 file, which is a zip archive, in the folder ``extra``."""

Engine = Literal["onnxruntime", "openvino"]
_SUFFIXES = (".onnx", ".pt2")
_Run = Callable[[Tensor], Tensor]


def is_exported(name: str | Path) -> bool:
    """Whether a name is that of a file that ``plasm.export`` writes."""
    return str(name).endswith(_SUFFIXES)


class ExportedModel(VideoModel):
    """A model that lies in a file and has no parameters here.

    Args:
        run: (B, T, C, H, W) -> (B, T', C', H, W), for the sizes that the file takes.
        metadata: Of the file.

    Attributes:
        metadata: Of the file; see ``plasm.export``.
        size: H and W that the file takes; None if any multiple of ``size_multiple`` will do.
    """

    def __init__(self, run: _Run, metadata: Mapping[str, str]) -> None:
        counts = (int(metadata[name]) for name in ("in_chans", "in_frames", "out_frames", "out_chans"))
        super().__init__(*counts)
        self._run, self.metadata = run, dict(metadata)
        self.size_multiple = int(metadata["size_multiple"])
        fixed = metadata["dynamic_size"] != "true"
        self.size = (int(metadata["height"]), int(metadata["width"])) if fixed else None

    @forecasts
    def forward(self, clip: Tensor) -> Tensor:
        """Predict the next frames.

        Args:
            clip: (B, T, C, H, W).

        Returns:
            (B, T', C', H, W), not clamped, where the clip lies; it is computed on the CPU.

        Raises:
            ValueError: If the clip has other T or C than the model, or a size that the file does not take.
        """
        self.check_clip(clip)
        if self.size is None:
            return self.crop(self._on_cpu(self.pad_clip(clip)), clip)
        if tuple(clip.shape[-2:]) != self.size:
            raise ValueError(
                f"the file takes frames of {self.size[0]}x{self.size[1]}, got {clip.shape[-2]}x{clip.shape[-1]}: bring "
                f"them to that size, or export with dynamic_size"
            )
        return self._on_cpu(clip)

    def _on_cpu(self, clip: Tensor) -> Tensor:
        return self._run(clip.to("cpu", torch.float32).contiguous()).to(clip.device)


def load_exported(file: Path | str, threads: int | None = None, engine: Engine = "onnxruntime") -> ExportedModel:
    """Load what ``plasm.export`` wrote.

    A .pt2 file holds code that torch runs (of ``aoti`` a compiled library): load those alone whose source you trust.

    Args:
        file: .onnx or .pt2.
        threads: Of the engine; by default as many as torch has.
        engine: What runs an .onnx file.

    Raises:
        ImportError: If the file is .onnx, and what runs it is not installed.
        OSError: If there is no such file, or it is damaged.
        ValueError: If it was not written by ``plasm.export``.
    """
    file = Path(file)
    metadata = read_metadata(file)
    if file.suffix == ".onnx":
        return ExportedModel(_ENGINES[engine](file, threads or torch.get_num_threads()), metadata)
    if metadata["format"] == "aoti":
        return ExportedModel(_aoti(file), metadata)
    program = torch.export.load(file).module()
    # Not the module itself: it would be moved, and put into a mode, with the model that holds it.
    return ExportedModel(lambda clip: program(clip), metadata)


def read_metadata(file: Path | str) -> dict[str, str]:
    """What a file of ``plasm.export`` says of itself, by name; ``plasm.export`` tells what there is.

    Raises:
        ImportError: If the file is .onnx, and onnxruntime is not installed.
        OSError: If there is no such file, or it is damaged.
        ValueError: If it was not written by ``plasm.export``.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there")
    metadata = _onnx_metadata(file) if file.suffix == ".onnx" else _archive_metadata(file)
    if "plasm" not in metadata:
        raise ValueError(f"{file} was not written by plasm export: it does not say what frames it takes")
    return metadata


def _archive_metadata(file: Path) -> dict[str, str]:
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.endswith(f"/extra/{METADATA}")]
            metadata: dict[str, str] = json.loads(archive.read(names[0])) if names else {}
    except (zipfile.BadZipFile, ValueError) as error:
        raise OSError(f"{file} is no whole .pt2 file: {error}") from error
    return metadata


def _onnx_session(file: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"onnx files need onnxruntime ({error}): pip install 'plasm-video[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Warnings about what it optimises are for its authors.
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # It has a class of its own for each thing that can be wrong.
        raise OSError(f"{file} is no model that onnxruntime loads: {error}") from error


def _onnx_metadata(file: Path) -> dict[str, str]:
    metadata: dict[str, str] = _onnx_session(file, 1).get_modelmeta().custom_metadata_map
    return metadata


def _onnx(file: Path, threads: int) -> _Run:
    session = _onnx_session(file, threads)
    name = session.get_inputs()[0].name

    def run(clip: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: clip.numpy()})[0])

    return run


def _openvino(file: Path, threads: int) -> _Run:
    try:
        import openvino
    except ImportError as error:
        raise ImportError(f"OpenVINO is not installed ({error}): pip install 'plasm[openvino]'") from error
    # It computes in bfloat16 by itself where the CPU can.
    given = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(file), "CPU", given)
    return lambda clip: torch.from_numpy(compiled([clip.numpy()])[0].copy())


_ENGINES: dict[str, Callable[[Path, int], _Run]] = {"onnxruntime": _onnx, "openvino": _openvino}


def _aoti(file: Path) -> _Run:
    compiled = torch._inductor.aoti_load_package(str(file))
    return lambda clip: compiled(clip)
