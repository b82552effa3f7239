"""PredRNN++: layers of Causal LSTMs, with a gradient highway between the first and the second.

Paper: Wang, Gao, Long, Wang, Yu, ICML 2018, arXiv 1804.06300.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from plasm.layers.causal_lstm import CausalLSTMCell, GradientHighwayUnit
from plasm.tasks import ScheduledSampling

from ._benchmarks import CALTECH, HUMAN36M, KTH, MMNIST, SAMPLING, TAXIBJ, recipes
from ._family import Family, paper
from ._patch_rnn import PATCH_ADAPTERS, PatchRNN, openstl_arguments, rename
from ._recurrent import Inputs, same_dims

__all__ = ["PredRNNpp", "checkpoint_filter_fn"]


class PredRNNpp(PatchRNN):
    """A stack of ``CausalLSTMCell`` and a ``GradientHighwayUnit``, of two layers or more; arguments as ``PatchRNN``.

    All ``hidden_dims`` are the same. (OpenSTL's code with ``layer_norm`` does not run.)
    """

    cell = CausalLSTMCell

    def create_cells(self, kernel_size: int, size: tuple[int, int] | None, dd: dict[str, Any]) -> list[nn.Module]:
        """The cells, from the bottom up."""
        same_dims(self.hidden_dims, "PredRNN++")
        if len(self.hidden_dims) < 2:
            raise ValueError("PredRNN++ has two layers or more: its highway lies between the first and the second")
        return super().create_cells(kernel_size, size, dd)

    def add_modules(self, kernel_size: int, size: tuple[int, int] | None, dd: dict[str, Any]) -> None:
        """Add the highway between the first layer and the second."""
        self.highway = GradientHighwayUnit(self.hidden_dims[0], kernel_size, size, **dd)

    def step(self, inputs: Inputs, state: Any) -> tuple[Tensor, Any]:
        """One step; the state is h and c of each layer, the memory, and the highway's z."""
        cells: list[Any] = list(self.cells)
        first: Any = ([None] * len(cells), None, None)
        states, m, z = first if state is None else state
        states, gates = list(states), inputs[0]
        for index, cell in enumerate(cells):
            if index == 1:
                z = self.highway(states[0][0], z)
            gates = cell.project(z if index == 1 else states[index - 1][0]) if index else gates
            h, c, m = cell.step(gates, states[index], m)
            states[index] = (h, c)
        return states[-1][0], (states, m, z)


_RENAMES = [(r"^gradient_highway\.([xz])_concat\.", r"highway.conv_\1.")]


def checkpoint_filter_fn(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Give OpenSTL's tensors the names of a ``PredRNNpp``, without a convolution a cell that its code never uses."""
    return rename(state_dict, "cell_list.", _RENAMES, unused=r"^cell_list\.\d+\.conv_o\.")


FAMILY = Family(
    module=__name__,
    **paper("wang2018predrnnpp"),
    url="https://arxiv.org/abs/1804.06300",
    # OpenSTL's (commit c74deb5), file by file of its configs.
    recipes=recipes(
        "predrnnpp",
        lr={"mmnist": 1e-4, "taxibj": 1e-4, "human36m": 1e-4, "caltech": 5e-3, "kth": 1e-3},
        **SAMPLING,
    ),
    adapters=PATCH_ADAPTERS,
    task=ScheduledSampling,
    checkpoint_filter_fn=checkpoint_filter_fn,
    openstl={"predrnnpp": openstl_arguments},
)
default_cfgs = FAMILY.default_cfgs

# Patches as in OpenSTL's configurations.
predrnnpp_mmnist = FAMILY.register(PredRNNpp, "predrnnpp_mmnist", **MMNIST, patch_size=4)
predrnnpp_taxibj = FAMILY.register(PredRNNpp, "predrnnpp_taxibj", **TAXIBJ, patch_size=2)
predrnnpp_human36m = FAMILY.register(PredRNNpp, "predrnnpp_human36m", **HUMAN36M, patch_size=4)
predrnnpp_caltech = FAMILY.register(PredRNNpp, "predrnnpp_caltech", **CALTECH, patch_size=2)
predrnnpp_kth = FAMILY.register(PredRNNpp, "predrnnpp_kth", **KTH, patch_size=2)
predrnnpp_mmnist_tiny = FAMILY.register(
    PredRNNpp, "predrnnpp_mmnist_tiny", **MMNIST, patch_size=4, hidden_dims=(10, 10, 10, 10)
)
