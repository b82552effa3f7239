"""E3D-LSTM: layers of eidetic LSTMs on windows of patches.

Paper: Wang, Jiang, Yang, Li, Long, Fei-Fei, ICLR 2019, https://openreview.net/forum?id=B1lKS2AqtX.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from plasm.layers.eidetic_lstm import Eidetic3DLSTMCell
from plasm.tasks import ScheduledSamplingL1

from ._base import check_positive
from ._benchmarks import CALTECH, HUMAN36M, KTH, MMNIST, SAMPLING, TAXIBJ, TINY, recipes
from ._family import Family, paper
from ._patch_rnn import PATCH_ADAPTERS, PatchRNN, openstl_arguments, rename
from ._recurrent import Inputs, patchify, same_dims, unpatchify

__all__ = ["E3DLSTM", "checkpoint_filter_fn", "from_openstl"]


class E3DLSTM(PatchRNN):
    """A stack of ``Eidetic3DLSTMCell``, which see the last W frames at each step, and zeros before the first.

    Arguments as ``PatchRNN``; all ``hidden_dims`` are the same. Clips are of ``img_size``: there are weights for each
    position. Beside them, ``window`` is W; for ``stride``, and for ``as_openstl``, which computes as OpenSTL's code
    does where it departs from the authors', see ``Eidetic3DLSTMCell``.
    """

    fixed_size = True

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
        window: int = 2,
        stride: int = 1,
        as_openstl: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_positive(window=window, stride=stride)
        self._cell_options: dict[str, Any] = {"window": window, "stride": stride, "as_openstl": as_openstl}
        super().__init__(
            in_chans, in_frames, out_frames, img_size, patch_size, hidden_dims, kernel_size, layer_norm,
            device, dtype,
        )  # fmt: skip
        self.window = window
        self.set_features({f"cells.{index}": window * dim for index, dim in enumerate(self.hidden_dims)}, patch_size)

    def create_cells(self, kernel_size: int, size: tuple[int, int] | None, dd: dict[str, Any]) -> list[nn.Module]:
        """The cells, from the bottom up."""
        dim = same_dims(self.hidden_dims, "E3D-LSTM")
        ins = [self.patch_dim] + [dim] * (len(self.hidden_dims) - 1)
        norm, options = size is not None, self._cell_options
        return [
            Eidetic3DLSTMCell(before, dim, self.positions, kernel_size=kernel_size, layer_norm=norm, **options, **dd)
            for before in ins
        ]

    def create_readout(self, dd: dict[str, Any]) -> nn.Module:
        """The convolution that gives patches, of all frames of the window."""
        return nn.Conv2d(self._cell_options["window"] * self.hidden_dims[-1], self.patch_dim, 1, bias=False, **dd)

    def encode_frames(self, frames: Tensor) -> Inputs:
        """Patches: (N, C, H, W) to (N, p^2 C, h, w). The first cell sees them in windows, step by step."""
        return (patchify(frames, self.patch_size),)

    def step(self, inputs: Inputs, state: Any) -> tuple[Tensor, Any]:
        """One step; the state is that of each layer, m, and the patches of the last W - 1 frames."""
        cells: list[Any] = list(self.cells)
        if state is None:
            states = [cell.start(inputs[0]) for cell in cells]
            m, past = torch.zeros_like(states[0][0]), [torch.zeros_like(inputs[0])] * (self.window - 1)
        else:
            states, m, past = list(state[0]), state[1], state[2]
        window = [*past, inputs[0]]
        below = torch.cat(window, 1)
        for index, cell in enumerate(cells):
            states[index], m = cell.step(cell.conv_x(below), states[index], m)
            below = _join(states[index][0])
        return below, (states, m, window[1:])

    def decode_frames(self, features: Tensor, inputs: Inputs) -> Tensor:
        """(N, W * D, h, w) to (N, C, H, W)."""
        return unpatchify(self.readout(features), self.patch_size)

    def hidden_states(self, state: Any) -> list[Tensor]:
        """H of each layer, (B, W * D, h, w)."""
        return [_join(each[0]) for each in state[0]]


def _join(h: Tensor) -> Tensor:
    """(N, D, W, h, w) to (N, W * D, h, w)."""
    return h.transpose(1, 2).flatten(1, 2)


_RENAMES = [
    (r"\.conv_gm\.", ".conv_m."),
    (r"\.conv_new_cell\.", ".conv_new_c."),
    (r"\.conv_new_gm\.", ".conv_new_m."),
    (r"\._norm_c_t\.", ".norm_c."),
    (r"\.conv_last\.conv3d\.", ".conv_last."),
]


def checkpoint_filter_fn(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Give OpenSTL's tensors the names and shapes of an ``E3DLSTM``: kernels of a whole window become 2D ones.

    Raises:
        ValueError: If they are OpenSTL's and the model computes as the paper does: the same tensors, another forecast.
    """
    theirs = any(name.startswith("cell_list.") for name in state_dict)
    if theirs and not getattr(model, "_cell_options", {}).get("as_openstl", True):
        raise ValueError(
            "these are weights of OpenSTL's E3D-LSTM, which attends otherwise than the paper's: make the model with "
            "as_openstl=True, or convert them with their configuration (--config)"
        )
    renamed = rename(state_dict, "cell_list.", _RENAMES)
    return {
        name: tensor.transpose(1, 2).flatten(1, 2) if tensor.ndim == 5 and "norm" not in name else tensor
        for name, tensor in renamed.items()
    }


def from_openstl(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What a configuration of OpenSTL describes, whose kernels are always 5 wide, and windows of two frames.

    Raises:
        ValueError: If a value is none that the model takes.
    """
    name, args = openstl_arguments(config, strided=True)
    theirs = {"kernel_size": 5, "window": 2, "stride": int(config.get("stride", 1)), "as_openstl": True}
    return name, {**args, **theirs}


FAMILY = Family(
    module=__name__,
    **paper("wang2019e3dlstm"),
    url="https://openreview.net/forum?id=B1lKS2AqtX",
    # OpenSTL's (commit c74deb5), file by file of its configs.
    recipes=recipes(
        "e3dlstm",
        # The league's rate, .004, it does not bear.
        lr={"mmnist": 1e-4, "taxibj": 5e-3, "human36m": 1e-4, "caltech": 2.5e-3, "kth": 5e-4, TINY: 1e-3},
        batch_size={"human36m": 4, "caltech": 4, "kth": 8},
        **SAMPLING,
    ),
    adapters=PATCH_ADAPTERS,
    task=ScheduledSamplingL1,
    checkpoint_filter_fn=checkpoint_filter_fn,
    openstl={"e3dlstm": from_openstl},
)
default_cfgs = FAMILY.default_cfgs

# Patches as in OpenSTL's configurations.
e3dlstm_mmnist = FAMILY.register(E3DLSTM, "e3dlstm_mmnist", **MMNIST, patch_size=4)
e3dlstm_taxibj = FAMILY.register(E3DLSTM, "e3dlstm_taxibj", **TAXIBJ, patch_size=2)
e3dlstm_human36m = FAMILY.register(E3DLSTM, "e3dlstm_human36m", **HUMAN36M, patch_size=4)
e3dlstm_caltech = FAMILY.register(E3DLSTM, "e3dlstm_caltech", **CALTECH, patch_size=2)
e3dlstm_kth = FAMILY.register(E3DLSTM, "e3dlstm_kth", **KTH, patch_size=2)
e3dlstm_mmnist_tiny = FAMILY.register(E3DLSTM, "e3dlstm_mmnist_tiny", **MMNIST, patch_size=8, hidden_dims=(16, 16))
