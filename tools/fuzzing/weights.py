"""Mutated weights: in a folder whose config.json states their sha256, in one that does not, alone, and old ones."""

import contextlib
import io
import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

from plasm import weights
from plasm.models import load_model

from .case import Case, Fuzzer

NAME = "plasm_mmnist"
ARGUMENTS: dict[str, Any] = {
    "encoder_dim": 4,
    "translator_dim": 8,
    "encoder_depth": 2,
    "translator_depth": 1,
    "num_heads": 2,
}
_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}


@dataclass(frozen=True)
class Shared:
    """What all cases begin with.

    Attributes:
        folder: Of whole weights, with their sha256.
        content: Bytes of the file in it, of others of the same shapes, and of an old checkpoint.
        shapes: Of the model's tensors.
    """

    folder: Path
    content: bytes
    other: bytes
    old: bytes
    shapes: dict[str, tuple[int, ...]]


def prepare(folder: Path) -> Shared:
    """Save whole weights."""
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(timm.create_model(NAME, **ARGUMENTS))
    weights.save_pretrained(models[0], folder / "whole")
    weights.save_tensors(models[1].state_dict(), folder / "other.safetensors")
    torch.save(models[0].state_dict(), folder / "old.pth")
    shapes = {name: tuple(tensor.shape) for name, tensor in models[0].state_dict().items()}
    return Shared(
        folder / "whole", (folder / "whole" / "model.safetensors").read_bytes(),
        (folder / "other.safetensors").read_bytes(), (folder / "old.pth").read_bytes(), shapes,
    )  # fmt: skip


# --- mutations: (random numbers, whole bytes, other bytes) -> mutated bytes ------------------------------------------


def _cut(numbers: np.random.Generator, content: bytes, other: bytes) -> bytes:
    return content[: numbers.integers(len(content))]


def _longer(numbers: np.random.Generator, content: bytes, other: bytes) -> bytes:
    return content + numbers.bytes(int(numbers.integers(1, 2000)))


def _flipped(numbers: np.random.Generator, content: bytes, other: bytes) -> bytes:
    mutated = np.frombuffer(content, np.uint8).copy()
    places = numbers.integers(len(mutated), size=int(numbers.integers(1, 9)))
    mutated[places] ^= np.uint8(1) << numbers.integers(8, size=len(places), dtype=np.uint8)
    return mutated.tobytes()


def _gone(numbers: np.random.Generator, content: bytes, other: bytes) -> bytes:
    first, last = sorted(numbers.integers(len(content) + 1, size=2))
    return content[:first] + bytes(int(last - first)) + content[last:]


def _spliced(numbers: np.random.Generator, content: bytes, other: bytes) -> bytes:
    place = int(numbers.integers(1, len(content)))
    return content[:place] + other[int(numbers.integers(1, len(other))) :]


def _exchanged(numbers: np.random.Generator, content: bytes, other: bytes) -> bytes:
    place = int(numbers.integers(1, len(content)))
    return content[:place] + other[place:]


def _random(numbers: np.random.Generator, content: bytes, other: bytes) -> bytes:
    return numbers.bytes(int(numbers.integers(0, 3000)))


def _not_finite(numbers: np.random.Generator, content: bytes, other: bytes) -> bytes:
    start = 8 + struct.unpack("<Q", content[:8])[0]
    values = np.frombuffer(content[start:], "<f4").copy()
    values[numbers.integers(len(values), size=int(numbers.integers(1, 5)))] = numbers.choice([np.nan, np.inf, -np.inf])
    return content[:start] + values.tobytes()


def _header(numbers: np.random.Generator, content: bytes, other: bytes) -> bytes:
    """A header that is JSON and says something else."""
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    name = str(numbers.choice([key for key in header if key != "__metadata__"]))
    entry, kind = header[name], int(numbers.integers(8))
    if kind == 0:
        entry["dtype"] = str(numbers.choice(["F64", "F16", "I32", "BOOL", "F4", "", "U8"]))
    elif kind == 1:
        entry["shape"] = [int(side) for side in numbers.integers(0, 1 << int(numbers.integers(1, 62)), size=3)]
    elif kind == 2:
        entry["data_offsets"] = [int(place) for place in numbers.integers(-9, len(data) * 2, size=2)]
    elif kind == 3:
        header[name + "_more"] = header.pop(name)
    elif kind == 4:
        del header[name]
    elif kind == 5:
        entry["shape"] = [*entry["shape"][::-1], 1]
    elif kind == 6:
        header["more"] = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    else:
        header[name] = (None, "x", 3)[int(numbers.integers(3))]
    text = json.dumps(header, default=str).encode()
    stated = len(text) if numbers.random() < 0.8 else int(numbers.integers(0, 1 << int(numbers.integers(1, 63))))
    return struct.pack("<Q", stated) + text + data


def _same(numbers: np.random.Generator, content: bytes, other: bytes) -> bytes:
    return content


MUTATIONS: dict[str, Callable[[np.random.Generator, bytes, bytes], bytes]] = {
    "whole": _same, "cut": _cut, "longer": _longer, "bits flipped": _flipped, "zeros": _gone, "spliced": _spliced,
    "exchanged": _exchanged, "random": _random, "not finite": _not_finite, "header": _header,
}  # fmt: skip


def _changed_config(numbers: np.random.Generator, text: str) -> str:
    """A config.json of which one value is another."""
    config = json.loads(text)
    places = [config] + [value for value in config.values() if isinstance(value, dict)]
    place = places[int(numbers.integers(len(places)))]
    key = str(numbers.choice(list(place)))
    values: list[Any] = [None, -1, 0, 1 << 40, 1.5, "x", [], {}, [1, 2, 3], True, "../../x", float("nan")]
    place[key] = values[int(numbers.integers(len(values)))]
    return json.dumps(config)


# --- what is right ---------------------------------------------------------------------------------------------------


def parse(content: bytes) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file by its specification, without the library."""
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        tensors[name] = np.frombuffer(data[first:last], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def _as_written(file: Path, model: nn.Module) -> bool:
    """Whether a model has, finite and in single precision, what a file says by its specification."""
    stated, own = parse(file.read_bytes()), model.state_dict()
    return stated.keys() == own.keys() and all(
        np.isfinite(own[name].numpy()).all() and np.array_equal(own[name].numpy(), array.astype(np.float32))
        for name, array in stated.items()
    )


def create(numbers: np.random.Generator, number: int, folder: Path, shared: Shared) -> Case:
    """Mutate weights in one of the places that weights come from."""
    places = ("folder with sha256", "folder without", "file", "config.json", "old checkpoint", "hostile")
    where = places[number % len(places)]
    if where == "hostile":
        return _hostile(numbers, folder, shared)
    title = str(numbers.choice(list(MUTATIONS)))
    if where == "old checkpoint":
        return _old(numbers, title, folder / "old.pth", shared)
    if where == "file":
        file = folder / "weights.safetensors"
        file.write_bytes(MUTATIONS[title](numbers, shared.content, shared.other))
        return Case(
            f"{where}: {title}", lambda: load_model(NAME, str(file), **ARGUMENTS),
            lambda model: _as_written(file, model), file.name,
        )  # fmt: skip
    out = folder / "weights"
    shutil.copytree(shared.folder, out)
    file, config = out / "model.safetensors", out / "config.json"
    text = config.read_text(encoding="utf-8")
    if where == "config.json":
        return _config(numbers, folder / "weights", text, shared)
    file.write_bytes(MUTATIONS[title](numbers, shared.content, shared.other))
    if where == "folder without":
        described = json.loads(text)
        del described["weights"]
        config.write_text(json.dumps(described), encoding="utf-8")
    whole = file.read_bytes() == shared.content
    right = (lambda model: _as_written(file, model)) if whole or where == "folder without" else None
    return Case(f"{where}: {title}", lambda: load_model(None, str(out)), right, file.name)


def _config(numbers: np.random.Generator, out: Path, text: str, shared: Shared) -> Case:
    title = str(numbers.choice(["cut", "bits flipped", "value changed"]))
    if title == "value changed":
        mutated = _changed_config(numbers, text).encode()
    else:
        mutated = MUTATIONS[title](numbers, text.encode(), b"")
    (out / "config.json").write_bytes(mutated)
    return Case(
        f"config.json: {title}", lambda: load_model(None, str(out)),
        # What does not say how the model is built may be anything.
        lambda model: _as_written(out / "model.safetensors", model), str(out),
    )  # fmt: skip


def _old(numbers: np.random.Generator, title: str, file: Path, shared: Shared) -> Case:
    if title in ("not finite", "header", "exchanged"):
        title = "bits flipped"
    file.write_bytes(MUTATIONS[title](numbers, shared.old, shared.content))

    def convert() -> dict[str, Tensor]:
        tensors = weights.read_checkpoint(file)
        weights.save_tensors(tensors, file.with_name("new.safetensors"))
        return weights.load_tensors(file.with_name("new.safetensors"))

    def right(tensors: dict[str, Tensor]) -> bool:
        expected: dict[str, Any] = torch.load(io.BytesIO(shared.old), weights_only=True)
        return tensors.keys() == expected.keys() and all(
            torch.equal(tensors[name], expected[name]) for name in expected
        )

    return Case(f"old checkpoint: {title}", convert, right, file.name)


def _hostile(numbers: np.random.Generator, folder: Path, shared: Shared) -> Case:
    """What was made to harm: each is refused."""
    file, out = folder / "old.pth", folder / "weights"
    shutil.copytree(shared.folder, out)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    title = str(
        numbers.choice(["expanded", "deflated", "itself", "names", "deep", "timm's", "absurd", "sparse", "meta"])
    )
    name = "\x1b[2J\x07" + "w" * 500
    loop: dict[str, Any] = {}
    loop["model"] = loop
    contents: dict[str, Any] = {
        "expanded": {"a": torch.zeros(1).expand(int(numbers.integers(10**5, 10**6)), 10**5)},
        "deflated": {"a": torch.zeros(20_000_000)},
        "itself": loop,
        "names": {f"{name}{number}": number for number in range(1000)},
        "meta": {"a": torch.empty(3, device="meta")},
    }
    if title in contents:
        torch.save(contents[title], file)
        if title == "deflated":
            with zipfile.ZipFile(file) as stored, zipfile.ZipFile(folder / "small", "w", zipfile.ZIP_DEFLATED) as small:
                for entry in stored.namelist():
                    small.writestr(entry, stored.read(entry))
            (folder / "small").replace(file)
        return Case(f"hostile: {title}", lambda: weights.read_checkpoint(file), None, file.name)
    depth = int(numbers.integers(40, 100_000))
    if title == "sparse":
        # Of a consistent header, and larger than any machine.
        numel = 1 << 50
        header = json.dumps({"a": {"dtype": "F32", "shape": [numel], "data_offsets": [0, 4 * numel]}}).encode()
        with (out / "model.safetensors").open("wb") as stream:
            stream.write(struct.pack("<Q", len(header)) + header)
            with contextlib.suppress(OSError):
                stream.truncate(8 + len(header) + (1 << 42))
    elif title == "timm's":
        config["architecture"] = str(numbers.choice(["vit_tiny_patch16_224", "resnet18", "convnext_atto"]))
        config["model_args"] = {"embed_dim": 30_000, "depth": 10**9}
    elif title == "absurd":
        name = str(numbers.choice(["encoder_dim", "translator_dim", "in_frames", "encoder_depth"]))
        config["model_args"][name] = int(numbers.choice([10**5, 10**9, 10**18]))
    elif title == "deep":
        config["model_args"]["x"] = "DEEP"
    text = json.dumps(config).replace('"DEEP"', "[" * depth + "]" * depth)
    (out / "config.json").write_text(text, encoding="utf-8")
    return Case(f"hostile: {title}", lambda: load_model(None, str(out)), None, str(out))


FUZZER = Fuzzer(prepare, create)
