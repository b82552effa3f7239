"""Exported models, .onnx and .pt2, whose bytes or whose description of themselves is another."""

import io
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import timm
import torch
from torch import Tensor

from plasm.exporting import METADATA, export, load_exported

from .case import Case, Fuzzer
from .weights import ARGUMENTS, MUTATIONS, NAME

_MUTATIONS = ("whole", "cut", "longer", "bits flipped", "zeros", "spliced", "random")
_DESCRIPTIONS: dict[str, Any] = {
    "deep": "[" * 100_000, "list": "[1, 2]", "null": "null", "text": '"text"', "empty": "{}", "no JSON": "\x1b[2J{",
    "number": "3", "absent": None, "huge": " " * (64 << 20),
}  # fmt: skip
_VALUES = ("", "x", "-1", "0", "1e9", "99999999999", "\x1b[2J", "null", "9" * 5000)


@dataclass(frozen=True)
class Shared:
    """What all cases begin with: the files' bytes by their ending, a clip, and what follows it."""

    content: dict[str, bytes]
    clip: Tensor
    frames: Tensor


def prepare(folder: Path) -> Shared:
    """Export a small model, noted as this user's in a record of the fuzzer's own."""
    os.environ["PLASM_CACHE"] = str(folder / "cache")
    torch.manual_seed(0)
    model: Any = timm.create_model(NAME, **ARGUMENTS).eval()
    clip = torch.rand(1, model.in_frames, 1, 16, 16)
    content = {}
    for ending, format in ((".onnx", "onnx"), (".pt2", "pt2")):
        file = folder / f"whole{ending}"
        export(model, file, format, size=(16, 16))
        content[ending] = file.read_bytes()
    with torch.no_grad():
        return Shared(content, clip, model(clip))


def create(numbers: np.random.Generator, number: int, folder: Path, shared: Shared) -> Case:
    """Change a file's bytes, or its metadata; it is untrusted then, and some trust it."""
    trust = bool(numbers.random() < 0.7)
    ending = (".onnx", ".pt2")[number % 2]
    file, whole = folder / f"a{ending}", shared.content[ending]
    if number % 4 < 2:
        title = str(numbers.choice(_MUTATIONS))
        file.write_bytes(MUTATIONS[title](numbers, whole, whole[::-1]))
    else:
        title = str(numbers.choice([*_DESCRIPTIONS, "value"]))
        file.write_bytes((_other_onnx if ending == ".onnx" else _other_archive)(numbers, title, whole))

    unchanged = file.read_bytes() == whole

    def right(frames: Tensor) -> bool:
        # A trusted file may hold other weights than it says: no checksum is in it.
        same = torch.allclose(frames, shared.frames, atol=1e-3)
        return same if unchanged else trust and frames.shape == shared.frames.shape

    who = "" if unchanged else ", trusted" if trust else ", not trusted"
    return Case(f"{ending}, {title}{who}", lambda: load_exported(file, trust=trust)(shared.clip), right, file.name)


def _other_onnx(numbers: np.random.Generator, title: str, whole: bytes) -> bytes:
    proto = onnx.load_from_string(whole)
    props = {prop.key: prop.value for prop in proto.metadata_props}
    if title == "value":
        props[str(numbers.choice(list(props)))] = str(numbers.choice(_VALUES))
    else:
        props = {} if _DESCRIPTIONS[title] is None else dict.fromkeys(props, _DESCRIPTIONS[title][:100_000])
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, props)
    content: bytes = proto.SerializeToString()
    return content


def _other_archive(numbers: np.random.Generator, title: str, whole: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        entries = [(info, archive.read(info)) for info in archive.infolist()]
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED if title == "huge" else zipfile.ZIP_STORED) as archive:
        for info, content in entries:
            if not info.filename.endswith(METADATA):
                archive.writestr(info, content)
                continue
            text = _DESCRIPTIONS.get(title)
            if title == "value":
                described = json.loads(content)
                described[str(numbers.choice(list(described)))] = str(numbers.choice(_VALUES))
                text = json.dumps(described)
            if text is not None:
                archive.writestr(info.filename, text)
    return written.getvalue()


FUZZER = Fuzzer(prepare, create)
