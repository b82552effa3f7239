"""Models that were exported to a file, as models: they predict and are measured as any other.

What ``plasm.export`` writes says itself what it is (``read_metadata``). ``load_exported`` makes a ``VideoModel`` of it,
whose ``forward`` runs the file in onnxruntime or torch.

Shapes: B clips, T input frames, T' output frames, C input and C' output channels, H x W pixels.
"""

import io
import logging
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from torch import Tensor

from plasm import weights
from plasm.models import VideoModel
from plasm.models.forecasting import forecasts

__all__ = [
    "METADATA",
    "Engine",
    "ExportedModel",
    "UntrustedFileError",
    "check_origin",
    "is_exported",
    "load_exported",
    "read_metadata",
    "record_file",
    "remember",
]

METADATA = "plasm.json"
"""What the metadata is called inside a .pt2 file, which is a zip archive, in the folder ``extra``."""

Engine = Literal["onnxruntime", "openvino"]
_SUFFIXES = (".onnx", ".pt2")
_RECORD = "exports"
_COUNTS = ("in_frames", "out_frames", "in_chans", "out_chans", "height", "width", "size_multiple")
_ONNX_METADATA = 14  # metadata_props of ModelProto
_LARGEST_METADATA, _LARGEST_GRAPH, _MOST_FIELDS = 2**20, 2**28, 100_000
# Of archives of torch 2.9 and later, and of those before.
_SAMPLES = ("/data/sample_inputs/", "serialized_example_inputs.pt")
_NOT_NEEDED = ("/data/aotinductor/", "/executorch/", "/extra/")
_logger = logging.getLogger(__name__)
_Run = Callable[[Tensor], Tensor]


class UntrustedFileError(ValueError):
    """An exported file is of unknown origin."""


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
        try:
            frames = self._run(clip.to("cpu", torch.float32).contiguous())
        except Exception as error:  # Each engine has its own.
            raise ValueError(
                f"the exported model fails on a clip of {tuple(clip.shape)}: {_first_line(error)}"
            ) from error
        expected = (len(clip), self.out_frames, self.out_chans, *clip.shape[3:])
        if tuple(frames.shape) != expected:
            raise ValueError(
                f"the exported model gives frames of {tuple(frames.shape)}, where its metadata promise {expected}"
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
    file = Path(file)
    metadata = read_metadata(file)
    if trust:
        return ExportedModel(_load(file, file, metadata, threads, engine), metadata)
    with tempfile.TemporaryDirectory(prefix="plasm-") as folder:
        # What is loaded is what was hashed, and nothing lies beside it.
        copy = Path(folder) / file.name
        shutil.copyfile(file, copy)
        check_origin(copy, named=file)
        return ExportedModel(_load(copy, file, read_metadata(copy), threads, engine), metadata)


def _load(file: Path, named: Path, metadata: Mapping[str, str], threads: int | None, engine: Engine) -> _Run:
    if file.suffix == ".onnx":
        return _ENGINES[engine](file, threads or torch.get_num_threads())
    try:
        return _aoti(file) if metadata["format"] == "aoti" else _program(file)
    except Exception as error:  # torch raises all kinds.
        raise OSError(f"{named} is no .pt2 file that torch {torch.__version__} loads: {_first_line(error)}") from error


def check_origin(file: Path, named: Path | None = None) -> None:
    """Check that this user exported a file on this machine.

    Args:
        file: That is looked at.
        named: What the error calls it.

    Raises:
        UntrustedFileError: If the record knows no file of its sha256.
    """
    sha256 = weights.file_sha256(file)
    if sha256 not in _known():
        raise UntrustedFileError(
            f"{named or file} was not exported by you on this machine (sha256 {sha256[:12]}...). Such a file is a "
            "program, and may do whatever its author wants: if you know the author, --trust runs it (trust=True in "
            "Python). Weights that come as .safetensors need no trust"
        )


def remember(file: Path) -> None:
    """Note that this user exported a file on this machine."""
    sha256, record = weights.file_sha256(file), record_file()
    if sha256 in _known():
        return
    try:
        record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with record.open("a", encoding="ascii") as stream:
            stream.write(f"{sha256}\n")
    except OSError as error:
        _logger.warning("%s cannot be written (%s): to run %s will take --trust", record, error, file)


def record_file() -> Path:
    """Where exports of this user are noted, a sha256 a line: in the folder PLASM_CACHE, or the system's for caches."""
    if given := os.environ.get("PLASM_CACHE"):
        return Path(given) / _RECORD
    home = Path.home()
    if sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        folder = home / "Library" / "Caches"
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return folder / "plasm" / _RECORD


def _known() -> set[str]:
    record = record_file()
    try:
        # Another user's would be another user's word.
        if hasattr(os, "getuid") and record.stat().st_uid != os.getuid():
            return set()
        return set(record.read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return set()


def read_metadata(file: Path | str) -> dict[str, str]:
    """What a file of ``plasm.export`` says of itself, by name; ``plasm.export`` tells what there is.

    Nothing else of the file is read, and nothing runs.

    Raises:
        OSError: If there is no such file, or it is damaged.
        ValueError: If it was not written by ``plasm.export``.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there, or no file")
    metadata = _onnx_metadata(file) if file.suffix == ".onnx" else _archive_metadata(file)
    if "plasm" not in metadata:
        raise ValueError(f"{file} was not written by plasm export: it does not say what frames it takes")
    missing = {*_COUNTS, "dynamic_size", "format", "weights_sha256", "license"} - metadata.keys()
    wrong = [name for name in _COUNTS if not _is_count(metadata.get(name, "1"))]
    if missing or wrong:
        said = ", ".join([f"{name} is missing" for name in sorted(missing)] + [f"{name} is no count" for name in wrong])
        raise OSError(f"the metadata of {file} are damaged: {said}; export again")
    return metadata


def _is_count(text: str) -> bool:
    return len(text) < 8 and text.isascii() and text.isdigit() and int(text) > 0


def _archive_metadata(file: Path) -> dict[str, str]:
    try:
        with zipfile.ZipFile(file) as archive:
            infos = [info for info in archive.infolist() if info.filename.endswith(f"/extra/{METADATA}")]
            if not infos:
                return {}
            if len(infos) > 1 or infos[0].file_size > _LARGEST_METADATA:
                raise ValueError(f"{METADATA} is there {len(infos)} times, or larger than {_LARGEST_METADATA:,} bytes")
            with archive.open(infos[0]) as member:
                metadata = weights.parse_json(member.read(_LARGEST_METADATA), METADATA)
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError(f"{METADATA} is no list of names and texts")
    except Exception as error:  # zipfile raises all kinds.
        raise OSError(f"{file} is no whole .pt2 file: {_first_line(error)}") from error
    return metadata


def _onnx_metadata(file: Path) -> dict[str, str]:
    """``metadata_props`` of an ONNX file, past all the rest, of which a library might make far more than it is."""
    metadata: dict[str, str] = {}
    read = 0
    try:
        with file.open("rb") as stream:
            size = file.stat().st_size
            fields = 0
            while stream.tell() < size:
                if (fields := fields + 1) > _MOST_FIELDS:
                    raise ValueError(f"it has more than {_MOST_FIELDS:,} parts")
                field, content = _next_field(stream, size, _ONNX_METADATA)
                if field != _ONNX_METADATA:
                    continue
                read += len(content)
                if read > _LARGEST_METADATA:
                    raise ValueError(f"its metadata are larger than {_LARGEST_METADATA:,} bytes")
                entry, pair = io.BytesIO(content), {1: b"", 2: b""}
                while entry.tell() < len(content):
                    part, value = _next_field(entry, len(content))
                    pair[part] = value
                metadata[pair[1].decode()] = pair[2].decode()
        if not size:
            raise ValueError("it is empty")
    except ValueError as error:
        raise OSError(f"{file} is no model that onnxruntime loads: {_first_line(error)}") from error
    return metadata


def _next_field(stream: BinaryIO, end: int, wanted: int | None = None) -> tuple[int, bytes]:
    """The next field of a message of protocol buffers, its number and content; of others than the one wanted none."""
    tag = _varint(stream)
    field, kind = tag >> 3, tag & 7
    sizes = {1: 8, 5: 4}
    if kind == 0:
        _varint(stream)
        return field, b""
    if kind not in (1, 2, 5) or not field:
        raise ValueError("it is no message of protocol buffers")
    length = sizes[kind] if kind in sizes else _varint(stream)
    if stream.tell() + length > end:
        raise ValueError("it is cut off")
    if wanted not in (None, field) or length > _LARGEST_METADATA:
        stream.seek(length, io.SEEK_CUR)
        if wanted in (None, field):
            raise ValueError(f"its metadata are larger than {_LARGEST_METADATA:,} bytes")
        return field, b""
    return field, stream.read(length)


def _varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            raise ValueError("it is cut off")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("it is no message of protocol buffers")


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


def _program(file: Path) -> _Run:
    program = torch.export.load(io.BytesIO(_needed(file))).module()
    # Not the module itself: it would be moved, and put into a mode, with the model that holds it.
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
        raise OSError(f"{file} is no model that onnxruntime loads: {_first_line(error)}") from error


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
        raise ImportError(f"OpenVINO is not installed ({error}): pip install 'plasm-video[openvino]'") from error
    # It computes in bfloat16 by itself where the CPU can.
    given = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    try:
        compiled = openvino.Core().compile_model(str(file), "CPU", given)
    except Exception as error:
        raise OSError(f"{file} is no model that OpenVINO loads: {_first_line(error)}") from error
    return lambda clip: torch.from_numpy(compiled([clip.numpy()])[0].copy())


_ENGINES: dict[str, Callable[[Path, int], _Run]] = {"onnxruntime": _onnx, "openvino": _openvino}


def _aoti(file: Path) -> _Run:
    compiled = torch._inductor.aoti_load_package(str(file))
    return lambda clip: compiled(clip)
