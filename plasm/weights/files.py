"""Reading and writing weight files: safetensors only, and never half a file."""

import hashlib
import inspect
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from timm.models import create_model
from timm.models._hub import save_config_for_hf
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from plasm.files import atomic_write, listed, read_json, reason, shown

from . import manifest
from .card import Card
from .interface import ModelInterface

WEIGHTS_NAME = "model.safetensors"
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors as safetensors, whole or not at all."""
    with atomic_write(file) as beside:
        content = _serialize(tensors)
        try:
            # Its own save_file makes files that nobody else can read, on a shared disk, too.
            beside.write_bytes(content)
        except OSError as error:
            raise OSError(error.errno, f"{file} cannot be written: {error.strerror}") from error


def foreign_content(file: Path) -> str | None:
    """The kind of a file that is often found in place of weights; None if it is none of these."""
    with file.open("rb") as stream:
        head = stream.read(512)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "is empty"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, which names the weights and does not hold them: `git lfs pull` gets them"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page, not weights: the download went wrong (a login, perhaps, or a page about the file)"
    if start.startswith((b"{", b"[")):
        return "is JSON, not weights"
    return None


def half_precision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in float16; whole numbers, and what has a value above its largest (65,504), stay as they are.

    The variances that a BatchNorm keeps can be as large.
    """
    most = torch.finfo(torch.float16).max
    return {
        name: tensor.half() if tensor.is_floating_point() and not (tensor.abs() > most).any() else tensor
        for name, tensor in tensors.items()
    }


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hexadecimal sha256 of the file that ``save_tensors`` makes of them."""
    return hashlib.sha256(_serialize(tensors)).hexdigest()


def _serialize(tensors: Mapping[str, Tensor]) -> bytes:
    # safetensors refuses channels_last tensors and views.
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    positions = [tensor.untyped_storage().data_ptr() for tensor in whole.values() if tensor.numel()]
    if len(positions) > len(set(positions)):
        # It refuses tensors that share their memory, too.
        whole = {name: tensor.clone() for name, tensor in whole.items()}
    return save(whole)


def load_tensors(file: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read a safetensors file, once: the bytes that are hashed are those that the tensors are made of.

    Args:
        file: Of safetensors.
        sha256: What the file must have, if that is known.

    Raises:
        OSError: If there is no such file, its sha256 is another, it is not a whole safetensors file, or this machine
            has not the memory for it.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there, or no file")
    size = check_size(file)
    try:
        content = file.read_bytes()
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise OSError(f"{file} is damaged: its sha256 is not the {sha256} that is stated of it")
        # The tensors are copies of their parts of it; together with the model, which is made next, they take no more.
        return dict(sorted(load(content).items()))
    except OSError:
        raise
    except MemoryError as error:
        raise OSError(f"{file} has {size / 1e9:,.1f} GB, more than there is memory for") from error
    except Exception as error:
        # Its own error, and others for a type that torch has not.
        found = foreign_content(file) or f"is damaged ({reason(error).partition(' in header')[0]})"
        raise OSError(f"{file} is not a whole safetensors file: it {found}") from error


def check_size(file: Path) -> int:
    """Give the bytes of a file that is to be read whole.

    Raises:
        OSError: If they are more than half of the machine's memory: a file is there twice while it is read.
    """
    size = file.stat().st_size
    try:
        most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    except (AttributeError, OSError, ValueError):
        # Windows says it elsewhere; there, a lack of memory is an error by itself.
        return size
    if size > most:
        raise OSError(f"{file} has {size / 1e9:,.0f} GB, more than the memory of this machine can take")
    return size


def file_sha256(file: Path) -> str:
    """Hexadecimal sha256 of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_model_config(file: Path) -> dict[str, Any]:
    """Read a ``config.json`` that may be anyone's, as far as it is one.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not the configuration of a model: it names none, or what is in it is of another kind.
    """
    config = read_json(file)
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise ValueError(f'{file} is no configuration of a model: it has no "architecture"')
    for part in ("model_args", "pretrained_cfg", "weights"):
        if not isinstance(config.get(part, {}), dict):
            raise ValueError(f"{file} is no configuration of a model: {part} is {shown(repr(config[part]))}")
    # These are arguments of timm.create_model, which would open any checkpoint_path.
    if foreign := sorted(set(inspect.signature(create_model).parameters) & set(config.get("model_args", {}))):
        raise ValueError(f"{file} has in model_args what is no argument of a model: {listed(foreign)}")
    sha256 = config.get("weights", {}).get("sha256", "0" * 64)
    if not (isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)):
        raise ValueError(f"{file} is no configuration of a model: its weights have the sha256 {shown(repr(sha256))}")
    return config


def load_folder(folder: Path) -> tuple[dict[str, Tensor], Path]:
    """Read the ``model.safetensors`` of a folder: its tensors and its path.

    Raises:
        FileNotFoundError: If the folder lacks that file or config.json.
        OSError: If the sha256 is not what config.json states, and otherwise as for ``load_tensors``.
        ValueError: If config.json is not the configuration of a model.
    """
    file = folder / WEIGHTS_NAME
    sha256 = read_model_config(folder / "config.json").get("weights", {}).get("sha256")
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no {WEIGHTS_NAME}, the only file plasm loads of it")
    return load_tensors(file, sha256), file


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str) -> None:
    """Check that tensors are those of a model: names, shapes, a floating data type, and finite.

    Args:
        tensors: From a file.
        expected: State dict of the model, on any device; "meta" will do.
        what: What the error calls it.

    Raises:
        ValueError: If they are not; it lists what does not fit.
    """
    problems = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} for {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in tensors and tensors[name].shape != tensor.shape
        ],
        "of no floating data type": [
            f"{name} {str(tensor.dtype).removeprefix('torch.')}"
            for name, tensor in tensors.items()
            # A counter, of BatchNorm say, is what it was.
            if tensor.dtype not in _DTYPES and (name not in expected or expected[name].dtype != tensor.dtype)
        ],
        "not finite": [
            name for name, tensor in tensors.items() if tensor.dtype in _DTYPES and not tensor.isfinite().all()
        ],
    }
    found = [f"{len(names)} tensor(s) {kind}: {listed(names)}" for kind, names in problems.items() if names]
    if found:
        raise ValueError(f"{what} does not fit the model: {'; '.join(found)}")


def save_pretrained(
    model: nn.Module,
    folder: Path | str,
    config: dict[str, Any] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    card: Card | None = None,
) -> None:
    """Write a folder in timm's format: "local-dir:FOLDER" then names the model, and ``plasm push`` puts it on the Hub.

    It holds ``model.safetensors``, ``config.json`` (architecture, arguments with the frame counts, normalisation, size
    and sha256 of the weights) and a model card, ``README.md``.

    Args:
        model: Made by ``timm.create_model``, which records the arguments that the config needs.
        folder: Made if it is not there.
        config: More entries for config.json.
        tensors: Written in place of the model's own, as a training run in progress does: without a card, and without
            the sha256, which the next save would belie if it were killed half-way.
        card: What the model card says beyond the model itself; of published weights, what the manifest says.

    Raises:
        ValueError: If the model was not made by ``timm.create_model``, or predicts no frames.
    """
    folder, model = Path(folder), unwrapped(model)
    _check_savable(model)
    folder.mkdir(parents=True, exist_ok=True)
    if tensors is not None:
        _save_config(model, folder, config or {})
        save_tensors(tensors, folder / WEIGHTS_NAME)
        return
    save_tensors(model.state_dict(), folder / WEIGHTS_NAME)
    describe_folder(model, folder, config, card)


def describe_folder(
    model: nn.Module, folder: Path, config: dict[str, Any] | None = None, card: Card | None = None
) -> None:
    """Write ``config.json`` and ``README.md`` beside the ``model.safetensors`` of a folder; see ``save_pretrained``."""
    file, card = folder / WEIGHTS_NAME, card or _card_of(model)
    described = {"file": file.name, "size": file.stat().st_size, "sha256": file_sha256(file)}
    # timm's is of the constructor's own weights, whatever these are.
    cfg = {"license": card.license, **(config or {}).get("pretrained_cfg", {})}
    _save_config(model, folder, {**(config or {}), "weights": described, "pretrained_cfg": cfg})
    saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    # A model of fixed counts has no arguments for them.
    found = ModelInterface.of(model)
    counts = {"in_frames": found.in_frames, "out_frames": found.out_frames, "in_chans": _channels(model)}
    saved["model_args"] = {**counts, **saved["model_args"]}
    picture = None
    if card.picture is not None:
        picture = f"prediction{card.picture.suffix}"
        with atomic_write(folder / picture) as beside:
            beside.write_bytes(card.picture.read_bytes())
    with atomic_write(folder / "README.md") as beside:
        beside.write_text(card.render(folder, saved, picture, found.paper), encoding="utf-8")


def _card_of(model: nn.Module) -> Card:
    """The card of a model of which nothing else is known: of published weights, unchanged, or an empty one."""
    cfg = ModelInterface.of(model).pretrained_cfg or {}
    for row in manifest.entries():
        file = manifest.FOLDER / row.file
        if (row.model, row.tag) != (cfg.get("architecture"), cfg.get("tag")) or not file.is_file():
            continue
        if not made_as_published(model, row):
            continue
        # A model has the tag of its default weights without having loaded them, too.
        kept, own = load_tensors(file), model.state_dict()
        same = kept.keys() == own.keys() and all(kept[name].shape == own[name].shape for name in kept)
        if same and all(torch.equal(kept[name].float(), own[name].float().cpu()) for name in kept):
            return Card.of_published(row)
    return Card()


def made_as_published(model: Any, row: manifest.Entry) -> bool:
    """Whether a model has the arguments that published weights were measured with.

    With others, the same tensors may forecast otherwise: from another number of frames, or without the skip.
    """
    with torch.device("meta"):
        measured = create_model(row.name)._model_args
    own = getattr(model, "_model_args", {})
    # As JSON, which knows no tuples: a config.json may be where they come from.
    return all(
        name in own and json.dumps(own[name], default=repr) == json.dumps(value) for name, value in measured.items()
    )


def unwrapped(model: Any) -> Any:
    """The model in what torch puts around one: of a compiled one, of several devices, of an average."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel | AveragedModel):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            return model


def _channels(model: nn.Module) -> int:
    found = ModelInterface.of(model)
    return int(found.pretrained_cfg["input_size"][0] if found.in_chans is None else found.in_chans)


def _check_savable(model: Any) -> None:
    found, parameters = ModelInterface.of(model), inspect.signature(type(model)).parameters
    if not found.pretrained_cfg:
        raise ValueError(
            f"a {type(model).__name__} that timm.create_model did not make cannot be saved so that it loads by name"
        )
    if not all(isinstance(count, int) for count in (found.in_frames, found.out_frames)):
        raise ValueError(
            f"a {type(model).__name__} does not say how many frames it maps to how many, by in_frames and out_frames: "
            "only models that predict frames are saved here, others by timm.models.save_for_hf"
        )
    args = model._model_args
    if "device" not in parameters or not args.keys() >= parameters.keys() - {"device", "dtype"}:
        # Not all of its arguments are known, as of timm's own models.
        return
    # Its arguments make it again; what was done to it since, they do not.
    again = type(model)(**{name: value for name, value in args.items() if name in parameters}, device="meta")
    own, made = ({name: tensor.shape for name, tensor in net.state_dict().items()} for net in (model, again))
    if changed := sorted(name for name in {**own, **made} if own.get(name) != made.get(name)):
        raise ValueError(
            f"a {type(model).__name__} whose tensors are not those that its arguments make would not load again; "
            f"take off what was put on it, a weight norm or adapters, or save its state_dict(): {', '.join(changed)}"
        )


def _save_config(model: Any, folder: Path, config: dict[str, Any]) -> None:
    parameters = inspect.signature(type(model)).parameters
    # Spelled out, so that no later change of a constructor's default changes a saved model.
    frames = {name: getattr(model, name) for name in ("in_frames", "out_frames") if name in parameters}
    # timm takes these from the constructor's own configuration, whatever in_chans was.
    described = {name: model.pretrained_cfg[name][:1] * _channels(model) for name in ("mean", "std")}
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        # timm notes what it was given, whether the model takes it or not.
        model._model_args = {name: value for name, value in model._model_args.items() if name in parameters}
    config = {**config, "pretrained_cfg": {**described, **config.get("pretrained_cfg", {})}}
    with atomic_write(folder / "config.json") as beside:
        save_config_for_hf(model, str(beside), model_config=config, model_args=frames)
