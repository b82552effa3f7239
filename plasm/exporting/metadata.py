"""Metadata of exported files, read without a library that would run or trust the rest of the file.

In ONNX these are ``metadata_props``; of a .pt2 file, which is a zip archive, ``extra/plasm.json``.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import BinaryIO

from plasm.files import parse_json

METADATA = "plasm.json"
"""Name of the metadata in the folder ``extra`` of a .pt2 file, which is a zip archive."""
_COUNTS = ("in_frames", "out_frames", "in_chans", "out_chans", "height", "width", "size_multiple")
_ONNX_METADATA = 14  # metadata_props of ModelProto
_LARGEST_METADATA, _MOST_FIELDS = 2**20, 100_000


def read_metadata(file: Path | str) -> dict[str, str]:
    """Read the metadata of a file of ``plasm.export``, by name; ``plasm.export`` lists them.

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
    missing = {*_COUNTS, "dynamic_size", "format", "model", "weights_sha256", "license"} - metadata.keys()
    wrong = [name for name in _COUNTS if not _is_count(metadata.get(name, "1"))]
    if missing or wrong:
        said = ", ".join([f"{name} is missing" for name in sorted(missing)] + [f"{name} is no count" for name in wrong])
        raise OSError(f"the metadata of {file} are damaged: {said}; export again")
    return metadata


def write_metadata(file: Path, metadata: dict[str, str]) -> None:
    """Write metadata into a file of ``plasm.export``, in place of what was there."""
    if file.suffix == ".onnx":
        import onnx

        written = onnx.load(file)
        onnx.helper.set_model_props(written, metadata)
        onnx.save(written, file)
        return
    with zipfile.ZipFile(file) as archive:
        root = archive.namelist()[0].partition("/")[0]
        entries = [(info, archive.read(info)) for info in archive.infolist() if not info.filename.endswith(METADATA)]
    # Read and written again, since an archive cannot have one entry replaced; torch wants it without compression.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for info, content in entries:
            archive.writestr(info, content)
        archive.writestr(f"{root}/extra/{METADATA}", json.dumps(metadata, indent=1))


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
                metadata = parse_json(member.read(_LARGEST_METADATA), METADATA)
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError(f"{METADATA} is no list of names and texts")
    except Exception as error:  # zipfile raises all kinds.
        raise OSError(f"{file} is no whole .pt2 file: {first_line(error)}") from error
    return metadata


def _onnx_metadata(file: Path) -> dict[str, str]:
    """``metadata_props`` of an ONNX file; the rest, which a library might expand without limit, is skipped."""
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
        raise OSError(f"{file} is no model that onnxruntime loads: {first_line(error)}") from error
    return metadata


def _next_field(stream: BinaryIO, end: int, wanted: int | None = None) -> tuple[int, bytes]:
    """Number and content of the next field of a protocol buffers message; without content if it is not wanted."""
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


def first_line(error: BaseException) -> str:
    """The first line of the message of a library's error."""
    if isinstance(error, UnicodeError):
        # What the library has to say of a damaged file is not UTF-8 itself.
        return "it holds text that is damaged"
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
