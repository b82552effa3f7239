"""Checkpoints of other programs, converted to weights that plasm and timm load."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from plasm import weights

from . import openstl
from ._builder import create_model
from ._registry import family_of


@dataclass(frozen=True)
class Converted:
    """The result of a conversion.

    Attributes:
        tensors: How many.
        entry: Of the checkpoint, that held them; empty where it holds nothing else.
    """

    tensors: int
    entry: str


def convert_checkpoint(
    old: Path,
    new: Path,
    *,
    model: str | None = None,
    model_args: dict[str, Any] | None = None,
    config: Path | None = None,
    data: str | None = None,
    key: str | None = None,
) -> Converted:
    """Convert a checkpoint to a .safetensors file, or to a folder that timm loads. Only tensors are read.

    For a folder, and whenever ``model`` or ``config`` is given, they must fit the model; those that OpenSTL wrote get
    the model's own names.

    Args:
        old: .pth or .ckpt.
        new: .safetensors, or a folder.
        model: Constructor.
        model_args: Of the constructor.
        config: OpenSTL's configuration, .py or model_param.json, in place of ``model``.
        data: OpenSTL's data set, whose frames a ``config`` without in_shape is for.
        key: Entry of ``old`` to take; by default timm's choice, an average first.

    Raises:
        ValueError: If arguments contradict each other, or the tensors do not fit the model.
        OSError: If a file cannot be read or written.
    """
    if model is not None and config is not None:
        raise ValueError("--model and --config both say which model it is: give one")
    if config is not None and model_args:
        raise ValueError("--model-arg goes with --model: --config has the arguments")
    if data is not None and config is None:
        raise ValueError("--data goes with --config: it says what frames the model is for")
    if model is None and config is None and new.suffix != ".safetensors":
        raise ValueError(
            f"{new} would be a folder, for which --model or --config says what the tensors are of; or name a "
            ".safetensors"
        )
    taken, tensors = weights.read_entry(old, key)
    net = None
    if config is not None:
        net = openstl.load(config, tensors, data)
    elif model is not None:
        overlay = {"state_dict": tensors}
        net = create_model(model, pretrained=True, pretrained_cfg_overlay=overlay, **(model_args or {}))
        family = family_of(model)
        rename = family.checkpoint_filter_fn if family else None
        _check_unadapted(rename(tensors, net) if rename else tensors, net, old)
    if net is not None:
        tensors = net.state_dict()
    if net is None or new.suffix == ".safetensors":
        new.parent.mkdir(parents=True, exist_ok=True)
        weights.save_tensors(tensors, new)
    else:
        weights.save_pretrained(net, new)
    return Converted(len(tensors), taken)


def _check_unadapted(tensors: dict[str, Tensor], net: nn.Module, old: Path) -> None:
    """Refuse tensors that would have to be adapted: what is converted is what was given."""
    own = net.state_dict()
    misfits = [
        f"{name} {tuple(tensor.shape)} for {tuple(own[name].shape)}"
        for name, tensor in tensors.items()
        if name in own and own[name].shape != tensor.shape
    ]
    if misfits:
        raise ValueError(
            f"{old} does not fit the model, {len(misfits)} tensor(s) are of another shape: {', '.join(misfits)}; "
            "convert it with the arguments it was made with; models of other frames can be made of the result"
        )
