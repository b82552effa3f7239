"""PredRNN and PredRNNv2: layers of ST-LSTMs, through which one memory zigzags.

Papers: Wang, Long, Wang, Gao, Yu, NeurIPS 2017; Wang, Wu, Zhang, Gao, Wang, Yu, Long, TPAMI 2023, arXiv 2103.09504 (v2:
decoupled memories, reverse scheduled sampling).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plasm.layers.st_lstm import SpatioTemporalLSTMCell
from plasm.tasks import ScheduledSampling

from ._benchmarks import BENCHMARKS, CALTECH, HUMAN36M, KTH, MMNIST, SAMPLING, TAXIBJ, recipes
from ._family import Family, paper
from ._patch_rnn import PATCH_ADAPTERS, PatchRNN, openstl_arguments, rename
from ._recurrent import Inputs, same_dims

__all__ = ["PredRNN", "PredRNNv2", "checkpoint_filter_fn"]


class PredRNN(PatchRNN):
    """A stack of ``SpatioTemporalLSTMCell``; for the arguments see ``PatchRNN``. All ``hidden_dims`` are the same."""

    cell = SpatioTemporalLSTMCell

    def create_cells(self, kernel_size: int, size: tuple[int, int] | None, dd: dict[str, Any]) -> list[nn.Module]:
        """The cells, from the bottom up."""
        same_dims(self.hidden_dims, type(self).__name__)
        return super().create_cells(kernel_size, size, dd)

    def step(self, inputs: Inputs, state: Any) -> tuple[Tensor, Any]:
        """One step; the state is h and c of each layer, the memory, and what was added to c and m of each layer."""
        cells: list[Any] = list(self.cells)
        first: Any = ([None] * len(cells), None, None)
        states, m, _ = first if state is None else state
        states, gates, deltas = list(states), inputs[0], []
        for index, cell in enumerate(cells):
            gates = cell.project(states[index - 1][0]) if index else gates
            h, c, m, delta_c, delta_m = cell.step_increments(gates, states[index], m)
            states[index] = (h, c)
            deltas.append((delta_c, delta_m))
        return states[-1][0], (states, m, deltas)


class PredRNNv2(PredRNN):
    """PredRNN with decoupled memories, Section 3.3: training keeps apart what a step adds to c and to m."""

    def add_modules(self, kernel_size: int, size: tuple[int, int] | None, dd: dict[str, Any]) -> None:
        """Add the adapter of the increments, which plays no part in a forecast."""
        dim = self.hidden_dims[0]
        self.adapter = nn.Conv2d(dim, dim, 1, bias=False, **dd)

    def increments(self, state: Any) -> tuple[Tensor, Tensor]:
        """What a step added to c and to m, adapted by a 1x1 convolution (Eq. 7): (layers, B, D, h * w) each."""
        _, _, deltas = state
        both = self.adapter(torch.cat([torch.cat(pair) for pair in deltas])).float().flatten(2)
        delta_c, delta_m = both.unflatten(0, (len(deltas), 2, -1)).unbind(1)
        return delta_c, delta_m


def checkpoint_filter_fn(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Give OpenSTL's tensors the names of a ``PredRNN``; what has them already stays as it is."""
    return rename(state_dict, "cell_list.")


FAMILY = Family(
    module=__name__,
    **paper("wang2023predrnn"),
    url="https://arxiv.org/abs/2103.09504",
    # OpenSTL's (commit c74deb5), file by file of its configs.
    recipes={
        **recipes(
            "predrnn",
            lr={"mmnist": 5e-4, "taxibj": 1e-4, "human36m": 1e-4, "caltech": 1e-2, "kth": 1e-3},
            **SAMPLING,
        ),
        **recipes(
            "predrnnv2",
            lr={"mmnist": 5e-4, "taxibj": 5e-4, "human36m": 1e-4, "caltech": 1e-3, "kth": 1e-3},
            task_args={
                "sampling_stop": 50_000,
                "reverse_sampling": True,
                "decouple_weight": {**dict.fromkeys(BENCHMARKS, 0.1), "kth": 0.01},
            },
        ),
    },
    adapters=PATCH_ADAPTERS,
    task=ScheduledSampling,
    checkpoint_filter_fn=checkpoint_filter_fn,
    openstl={"predrnn": openstl_arguments, "predrnnv2": openstl_arguments},
)
default_cfgs = FAMILY.default_cfgs

# Patches as in OpenSTL's configurations.
predrnn_mmnist = FAMILY.register(PredRNN, "predrnn_mmnist", **MMNIST, patch_size=4)
predrnn_taxibj = FAMILY.register(PredRNN, "predrnn_taxibj", **TAXIBJ, patch_size=2)
predrnn_human36m = FAMILY.register(PredRNN, "predrnn_human36m", **HUMAN36M, patch_size=4)
predrnn_caltech = FAMILY.register(PredRNN, "predrnn_caltech", **CALTECH, patch_size=2)
predrnn_kth = FAMILY.register(PredRNN, "predrnn_kth", **KTH, patch_size=2)
predrnn_mmnist_tiny = FAMILY.register(
    PredRNN, "predrnn_mmnist_tiny", **MMNIST, patch_size=4, hidden_dims=(11, 11, 11, 11)
)

predrnnv2_mmnist = FAMILY.register(PredRNNv2, "predrnnv2_mmnist", **MMNIST, patch_size=4)
predrnnv2_taxibj = FAMILY.register(PredRNNv2, "predrnnv2_taxibj", **TAXIBJ, patch_size=2)
predrnnv2_human36m = FAMILY.register(PredRNNv2, "predrnnv2_human36m", **HUMAN36M, patch_size=4)
predrnnv2_caltech = FAMILY.register(PredRNNv2, "predrnnv2_caltech", **CALTECH, patch_size=2)
predrnnv2_kth = FAMILY.register(PredRNNv2, "predrnnv2_kth", **KTH, patch_size=2)
