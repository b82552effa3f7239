"""Size and cost of a model, without computing anything."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from plasm import weights

from ._builder import create_model


@dataclass(frozen=True)
class ModelSummary:
    """Size and cost of a model.

    Attributes:
        name: Constructor.
        parameters: How many.
        macs: Of one clip's forward pass: convolutions and matrix products.
        input_shape: (T, C, H, W).
        output_shape: (T', C, H, W).
        tags: Of the published weights.
    """

    name: str
    parameters: int
    macs: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    tags: tuple[str, ...]


def summarize(name: str, **model_args: object) -> ModelSummary:
    """Measure a model at its own input size.

    Args:
        name: Constructor.
        model_args: Passed to it.

    Raises:
        ValueError: If there is no such model, or it has no such argument.
    """
    # On the meta device tensors have shapes alone.
    with torch.device("meta"):
        model = create_model(name, **model_args)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        clip = torch.empty(1, model.in_frames, model.in_chans, *model.pretrained_cfg["input_size"][1:])
        out = model(clip)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    shapes = tuple(clip.shape[1:]), tuple(out.shape[1:])
    return ModelSummary(name, parameters, counter.get_total_flops() // 2, *shapes, tuple(weights.tags(name)))
