"""Exported files as models: they predict and are measured as any other, in onnxruntime, OpenVINO or torch.

Shapes: B clips, T input frames, T' output frames, C input and C' output channels, H x W pixels.
"""

import io
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from plasm.files import require
from plasm.models import VideoModel, forecasts

from .metadata import first_line, read_metadata
from .origin import check_origin

Engine = Literal["onnxruntime", "openvino"]
_SUFFIXES = (".onnx", ".pt2")
_LARGEST_GRAPH = 2**28
# Of archives of torch 2.9 and later, and of those before.
_SAMPLES = ("/data/sample_inputs/", "serialized_example_inputs.pt")
_NOT_NEEDED = ("/data/aotinductor/", "/executorch/", "/extra/")
_Run = Callable[[Tensor], Tensor]


def is_exported(name: str | Path) -> bool:
    """Whether a name is that of a file that ``plasm.export`` writes."""
    return str(name).endswith(_SUFFIXES)


class ExportedModel(VideoModel):
    """A model that lies in a file and has no parameters here.

    Args:
        run: (B, T, C, H, W) -> (B, T', C', H, W), for the sizes that the file takes.
        metadata: Of the file.
        file: Its name, for errors.

    Attributes:
        metadata: Of the file; see ``plasm.export``.
        size: H and W that the file takes; None if any multiple of ``size_multiple`` will do.
    """

    def __init__(self, run: _Run, metadata: Mapping[str, str], file: Path | str) -> None:
        counts = (int(metadata[name]) for name in ("in_chans", "in_frames", "out_frames", "out_chans"))
        super().__init__(*counts)
        self._run, self.metadata, self.file = run, dict(metadata), str(file)
        self.size_multiple = int(metadata["size_multiple"])
        fixed = metadata["dynamic_size"] != "true"
        self.size = (int(metadata["height"]), int(metadata["width"])) if fixed else None

    def check_clip(self, clip: Tensor) -> None:
        """Check the shape of a clip.

        Raises:
            ValueError: If it has other T or C than the file's metadata say, or not five dimensions.
        """
        if clip.ndim != 5 or clip.shape[1:3] != (self.in_frames, self.in_chans):
            raise ValueError(
                f"by its metadata {self.file} takes clips of (B, {self.in_frames}, {self.in_chans}, H, W), got "
                f"{tuple(clip.shape)}: give it such a clip, or export a model for this one"
            )

    def check_feedback(self, num_frames: int) -> None:
        """Check that so many frames can be predicted.

        Raises:
            ValueError: If frames would have to be fed back, and have other channels than the input, or the model that
                was exported goes on otherwise.
        """
        # Older files do not say it.
        if num_frames > self.out_frames and self.metadata.get("feeds_back") == "false":
            raise ValueError(
                f"{self.file} gives {self.out_frames} frames, and its model does not go on from there by feeding them "
                f"back: for {num_frames}, export with --frames {num_frames}"
            )
        super().check_feedback(num_frames)

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
                f"{self.file} takes frames of {self.size[0]}x{self.size[1]}, got {clip.shape[-2]}x{clip.shape[-1]}: "
                "bring them to that size, or export with dynamic_size"
            )
        return self._on_cpu(clip)

    def _on_cpu(self, clip: Tensor) -> Tensor:
        try:
            frames = self._run(clip.to("cpu", torch.float32).contiguous())
        except Exception as error:  # Each engine has its own.
            raise ValueError(f"{self.file} fails on a clip of {tuple(clip.shape)}: {first_line(error)}") from error
        expected = (len(clip), self.out_frames, self.out_chans, *clip.shape[3:])
        if tuple(frames.shape) != expected:
            raise ValueError(
                f"{self.file} gives frames of {tuple(frames.shape)}, where its metadata promise {expected}"
            )
        return frames.to(clip.device)


def load_exported(
    file: Path | str, threads: int | None = None, engine: Engine = "onnxruntime", *, trust: bool = False
) -> ExportedModel:
    """Load what ``plasm.export`` wrote.

    Such a file is a program. Of a .pt2 file torch may unpickle parts, and of ``aoti`` it runs a compiled library; an
    .onnx file may name other files, and compute without end. So a file is loaded only if this user exported it on this
    machine, which a record in the user's cache folder knows by sha256, or if the caller trusts it.

    Args:
        file: .onnx or .pt2.
        threads: Of the engine; by default as many as torch has.
        engine: What runs an .onnx file.
        trust: Run a file of any origin: its author is known, and means well.

    Raises:
        ImportError: If the file is .onnx, and what runs it is not installed.
        OSError: If there is no such file, or it is damaged.
        UntrustedFileError: If the file was not exported here, and ``trust`` is not given.
        ValueError: If it was not written by ``plasm.export``.
    """
    if engine not in _ENGINES:
        raise ValueError(f"engine is one of {', '.join(_ENGINES)}, got {engine!r}")
    file = Path(file)
    metadata = read_metadata(file)
    if trust:
        return ExportedModel(_load(file, file, metadata, threads, engine), metadata, file)
    with tempfile.TemporaryDirectory(prefix="plasm-") as folder:
        # What is loaded is what was hashed, and nothing lies beside it.
        copy = Path(folder) / file.name
        shutil.copyfile(file, copy)
        check_origin(copy, named=file)
        return ExportedModel(_load(copy, file, read_metadata(copy), threads, engine), metadata, file)


def _load(file: Path, named: Path, metadata: Mapping[str, str], threads: int | None, engine: Engine) -> _Run:
    if file.suffix == ".onnx":
        return _ENGINES[engine](file, threads or torch.get_num_threads())
    try:
        compiled = metadata["format"] == "aoti"
        program = (
            torch._inductor.aoti_load_package(str(file))
            if compiled
            else torch.export.load(io.BytesIO(_needed(file))).module()
        )
    except Exception as error:  # torch raises all kinds.
        raise OSError(f"{named} is no .pt2 file that torch {torch.__version__} loads: {first_line(error)}") from error
    # Not a module itself: it would be moved, and put into a mode, with the model that holds it.
    return lambda clip: program(clip)


def _needed(file: Path) -> bytes:
    """An archive of torch.export without what a program does not need: a sample, which is a pickle, and native code."""
    needed = io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(needed, "w", zipfile.ZIP_STORED) as kept:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise ValueError(f"{info.filename} is compressed, which torch does not write")
            if info.filename.endswith(".json") and info.file_size > _LARGEST_GRAPH:
                raise ValueError(f"{info.filename} has {info.file_size:,} bytes, more than {_LARGEST_GRAPH:,}")
            if any(part in info.filename for part in _NOT_NEEDED):
                continue
            # torch wants to find it, and makes nothing of an empty one.
            is_sample = any(part in info.filename for part in _SAMPLES)
            kept.writestr(info.filename, b"" if is_sample else archive.read(info))
    return needed.getvalue()


def _onnx(file: Path, threads: int) -> _Run:
    onnxruntime = require("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Warnings about what it optimises are for its authors.
    options.log_severity_level = 3
    try:
        # It would try again, with the same provider, and print that.
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        name = session.get_inputs()[0].name
    except Exception as error:  # It has a class of its own for each thing that can be wrong.
        raise OSError(f"{file} is no model that onnxruntime loads: {first_line(error)}") from error
    return lambda clip: torch.from_numpy(session.run(None, {name: clip.numpy()})[0])


def _openvino(file: Path, threads: int) -> _Run:
    openvino = require("openvino")
    # It computes in bfloat16 by itself where the CPU can.
    given = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    try:
        compiled = openvino.Core().compile_model(str(file), "CPU", given)
    except Exception as error:
        raise OSError(f"{file} is no model that OpenVINO loads: {first_line(error)}") from error
    return lambda clip: torch.from_numpy(compiled([clip.numpy()])[0].copy())


_ENGINES: dict[str, Callable[[Path, int], _Run]] = {"onnxruntime": _onnx, "openvino": _openvino}
