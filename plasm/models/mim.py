"""MIM, Memory In Memory: PredRNN whose forget gates are memories themselves, one of differences and one of cells.

Paper: Wang, Zhang, Zhu, Long, Wang, Yu, CVPR 2019, arXiv 1811.07490.

The paper gives each layer's MIM-N the difference of the layer below between two steps. The authors' code, OpenSTL's and
this model do so for the second layer alone; above it, MIM-N takes the output of the MIM-N below. OpenSTL keeps the
stationary memories in the module, from one clip to the next, and cuts their gradient at each step; here they are part
of the state like all others, and a forecast is that of OpenSTL's on a fresh clip.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from plasm.layers.mim import MIMBlock, MIMMemory
from plasm.layers.st_lstm import SpatioTemporalLSTMCell
from plasm.tasks import ScheduledSampling

from ._benchmarks import CALTECH, HUMAN36M, KTH, MMNIST, SAMPLING, TAXIBJ, recipes
from ._family import Family, paper
from ._patch_rnn import PATCH_ADAPTERS, PatchRNN, openstl_arguments, rename
from ._recurrent import Inputs, same_dims

__all__ = ["MIM", "checkpoint_filter_fn"]


class MIM(PatchRNN):
    """An ``SpatioTemporalLSTMCell``, and layers of ``MIMBlock`` with a ``MIMMemory`` of differences each.

    Arguments as ``PatchRNN``; all ``hidden_dims`` are the same. Clips are of ``img_size``: there are weights for each
    position.
    """

    fixed_size = True

    def create_cells(self, kernel_size: int, size: tuple[int, int] | None, dd: dict[str, Any]) -> list[nn.Module]:
        """The cells, from the bottom up."""
        dim = same_dims(self.hidden_dims, "MIM")
        first = SpatioTemporalLSTMCell(self.patch_dim, dim, kernel_size, size, **dd)
        blocks = [MIMBlock(dim, self.positions, kernel_size, size is not None, **dd) for _ in self.hidden_dims[1:]]
        return [first, *blocks]

    def add_modules(self, kernel_size: int, size: tuple[int, int] | None, dd: dict[str, Any]) -> None:
        """Add a memory of differences for each layer but the first."""
        dim, norm = self.hidden_dims[0], size is not None
        self.differences = nn.ModuleList(
            MIMMemory(dim, dim, self.positions, kernel_size, norm, **dd) for _ in self.hidden_dims[1:]
        )

    def step(self, inputs: Inputs, state: Any) -> tuple[Tensor, Any]:
        """One step; the state is that of each layer, of each memory of differences, and m."""
        cells: list[Any] = list(self.cells)
        first: Any = ([None] * len(cells), [None] * len(self.differences), None)
        states, memories, m = first if state is None else state
        states, memories = list(states), list(memories)
        before = None if state is None else states[0][0]
        h, c, m = cells[0].step(inputs[0], states[0], m)
        states[0] = (h, c)
        signal = None if before is None else h - before
        for index, memory in enumerate(self.differences):
            if signal is not None:
                h_d, c_d = (None, None) if memories[index] is None else memories[index]
                memories[index] = memory(signal, h_d, c_d, signal)
                signal = memories[index][0]
            states[index + 1], m = cells[index + 1](h, signal, states[index + 1], m)
            h = states[index + 1][0]
        return h, (states, memories, m)


_MEMORY = r"(ct_weight|oc_weight|conv_[hx]_concat)"
_RENAMES = [
    (rf"^stlstm_layer\.(\d+)\.{_MEMORY}", r"cells.\1.stationary.\2"),
    (r"^stlstm_layer_diff\.", "differences."),
    (r"^stlstm_layer\.", "cells."),
    (r"\.ct_weight$", ".weight_c"),
    (r"\.oc_weight$", ".weight_o"),
    (r"\.conv_([hx])_concat\.", r".conv_\1."),
    (r"\.conv_t_cc\.", ".conv_h."),
    (r"\.conv_s_cc\.", ".conv_m."),
    (r"\.conv_x_cc\.", ".conv_x."),
]


def checkpoint_filter_fn(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Give OpenSTL's tensors the names of a ``MIM``, without a convolution a memory that its code never uses."""
    return rename(state_dict, "stlstm_layer", _RENAMES, unused=r"^stlstm_layer_diff\.\d+\.conv_last\.")


FAMILY = Family(
    module=__name__,
    **paper("wang2019mim"),
    url="https://arxiv.org/abs/1811.07490",
    # OpenSTL's (commit c74deb5), file by file of its configs.
    recipes=recipes(
        "mim",
        lr={"mmnist": 5e-4, "taxibj": 1e-2, "human36m": 1e-4, "caltech": 1e-2, "kth": 1e-4},
        batch_size={"human36m": 4},
        **SAMPLING,
    ),
    adapters=PATCH_ADAPTERS,
    task=ScheduledSampling,
    checkpoint_filter_fn=checkpoint_filter_fn,
    openstl={"mim": openstl_arguments},
)
default_cfgs = FAMILY.default_cfgs

# Patches as in OpenSTL's configurations.
mim_mmnist = FAMILY.register(MIM, "mim_mmnist", **MMNIST, patch_size=4)
mim_taxibj = FAMILY.register(MIM, "mim_taxibj", **TAXIBJ, patch_size=2)
mim_human36m = FAMILY.register(MIM, "mim_human36m", **HUMAN36M, patch_size=4)
mim_caltech = FAMILY.register(MIM, "mim_caltech", **CALTECH, patch_size=2)
mim_kth = FAMILY.register(MIM, "mim_kth", **KTH, patch_size=2)
mim_mmnist_tiny = FAMILY.register(MIM, "mim_mmnist_tiny", **MMNIST, patch_size=4, hidden_dims=(14, 14))
