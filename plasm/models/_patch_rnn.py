"""The base of recurrent models on patches: ConvLSTM, PredRNN, PredRNN++, MIM, E3D-LSTM.

Frames are cut into patches, whose pixels become channels; layers of cells lie on the h x w positions of patches; a 1x1
convolution turns the last layer's hidden state into the patches of the next frame.

Shapes: as in ``recurrent``; D hidden channels.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ._adapters import Adapter, adapt_in_channels, adapt_out_channels
from ._base import check_odd, check_positive, match_layers
from ._recurrent import Inputs, RecurrentModel, patchify, unpatchify
from ._untrusted import no_number, whole


class PatchRNN(RecurrentModel):
    """A stack of recurrent layers on patches.

    A subclass whose cells have weights for each position without ``layer_norm``, too, says so: ``fixed_size = True``.

    Args:
        in_chans: C.
        in_frames: T.
        out_frames: T'.
        img_size: (H, W) or one number, for weights of each position: those of ``layer_norm``, and of MIM and E3D-LSTM.
        patch_size: p.
        hidden_dims: D of each layer.
        kernel_size: Side of the (odd) kernels.
        layer_norm: LayerNorm, with weights for each position, after the convolutions of the cells.
        device: Device of the parameters.
        dtype: Data type of the parameters.

    Raises:
        ValueError: If a count is not positive, a kernel not odd, or the layers cannot have these ``hidden_dims``.
    """

    cell: type[nn.Module]
    group_matcher = match_layers(r"^cells\.0\.conv_x", r"^(?:cells|differences)", r"^")

    def __init__(
        self,
        in_chans: int = 1,
        in_frames: int = 10,
        out_frames: int = 10,
        img_size: int | tuple[int, int] = 64,
        patch_size: int = 4,
        hidden_dims: Sequence[int] = (128, 128, 128, 128),
        kernel_size: int = 5,
        layer_norm: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_chans, in_frames, out_frames, img_size, patch_size)
        if not hidden_dims:
            raise ValueError("hidden_dims has a number for each layer, got none")
        check_positive(patch_size=patch_size, hidden_dims=hidden_dims)
        check_odd(kernel_size=kernel_size)
        self.patch_size, self.fixed_size = patch_size, self.fixed_size or layer_norm
        self.patch_dim = patch_size**2 * in_chans
        self.hidden_dims = tuple(hidden_dims)
        size = self.positions if layer_norm else None
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.cells = nn.ModuleList(self.create_cells(kernel_size, size, dd))
        self.readout = self.create_readout(dd)
        self.add_modules(kernel_size, size, dd)
        self.set_features({f"cells.{index}": dim for index, dim in enumerate(self.hidden_dims)}, patch_size)

    def create_cells(self, kernel_size: int, size: tuple[int, int] | None, dd: dict[str, Any]) -> list[nn.Module]:
        """The cells, from the bottom up: of ``cell``, by default."""
        ins = (self.patch_dim, *self.hidden_dims[:-1])
        return [
            self.cell(before, dim, kernel_size, size, **dd) for before, dim in zip(ins, self.hidden_dims, strict=True)
        ]

    def add_modules(self, kernel_size: int, size: tuple[int, int] | None, dd: dict[str, Any]) -> None:
        """Add what the system has beside cells and readout: nothing, by default."""

    def create_readout(self, dd: dict[str, Any]) -> nn.Module:
        """The convolution that gives patches."""
        return nn.Conv2d(self.hidden_dims[-1], self.patch_dim, 1, bias=False, **dd)

    def encode_frames(self, frames: Tensor) -> Inputs:
        """Patches, and what the first cell's gates take from them: (N, C, H, W) to (N, gates, h, w)."""
        first: Any = self.cells[0]
        return (first.project(patchify(frames, self.patch_size)),)

    def decode_frames(self, features: Tensor, inputs: Inputs) -> Tensor:
        """(N, D, h, w) to (N, C, H, W)."""
        return unpatchify(self.readout(features), self.patch_size)

    def hidden_states(self, state: Any) -> list[Tensor]:
        """H of each layer, which comes first in the layer's state, and these first in the state."""
        return [each[0] for each in state[0]]


PATCH_ADAPTERS: Mapping[str, Adapter] = {
    # Of several frames, those of one are together, channels innermost.
    "cells.0.conv_x.conv.weight": lambda w, model: adapt_in_channels(
        w, model.in_chans, model.cells[0].conv_x.conv.in_channels // model.in_chans
    ),
    "readout.*": lambda t, model: adapt_out_channels(t, model.out_chans, model.patch_size**2),
}
"""Adapters to other channels, of every system on patches: see ``Family.adapters``."""


def openstl_arguments(config: Mapping[str, Any], strided: bool = False) -> tuple[str, dict[str, Any]]:
    """Constructor and arguments by a configuration of OpenSTL, as ``plasm.models.openstl.read_config`` gives it.

    Missing keys have the values of OpenSTL's configurations for Moving MNIST. Systems that are not ``strided`` work
    with a stride of 1 alone; another, and a value that is no number, is a ValueError.
    """
    _, _, height, width = config["in_shape"]
    try:
        stride = whole(config, "stride", 1)
        out: dict[str, Any] = {
            "patch_size": whole(config, "patch_size", 4),
            "hidden_dims": tuple(config.get("num_hidden", (128, 128, 128, 128))),
            "kernel_size": whole(config, "filter_size", 5),
            "layer_norm": bool(whole(config, "layer_norm", 0)),
        }
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(no_number(error)) from error
    if stride != 1 and not strided:
        raise ValueError(f"with a stride of {stride} the layers' sizes would not fit; OpenSTL runs with 1 alone")
    if height % out["patch_size"] or width % out["patch_size"]:
        raise ValueError(f"patches of {out['patch_size']} do not divide {height} x {width}, as OpenSTL needs it")
    return f"{config['method']}_mmnist", out


_GATES = [
    (r"^cell_list\.", "cells."),
    (r"\.(conv_\w+|[xz]_concat)\.0\.(?:conv3d\.)?(weight|bias)$", r".\1.conv.\2"),
    (r"\.(conv_\w+|[xz]_concat)\.1\.(weight|bias)$", r".\1.norm.\2"),
    (r"^conv_last\.", "readout."),
]


def rename(
    state_dict: Mapping[str, Tensor], marker: str, renames: Sequence[tuple[str, str]] = (), unused: str | None = None
) -> dict[str, Tensor]:
    """Give OpenSTL's tensors the names of a ``PatchRNN``; what has them already stays as it is.

    Args:
        state_dict: OpenSTL's names, ``cell_list.0.conv_x.0.weight`` and so on, without prefix.
        marker: How a name of OpenSTL's begins, which no name of ours does.
        renames: Patterns and what they become, after those of all systems.
        unused: Pattern of tensors, in OpenSTL's names, that its code never uses.
    """
    if not any(name.startswith(marker) for name in state_dict):
        return dict(state_dict)
    out: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        if unused and re.search(unused, name):
            continue
        for pattern, new in (*_GATES, *renames):
            name = re.sub(pattern, new, name)
        out[name] = tensor
    return out
