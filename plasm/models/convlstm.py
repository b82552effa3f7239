"""ConvLSTM: layers of convolutional LSTMs on patches.

Paper: Shi, Chen, Wang, Yeung, Wong, Woo, NeurIPS 2015, arXiv 1506.04214. (There an encoder's states start a second
stack that forecasts; in OpenSTL and here, one stack goes on.)
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from plasm.layers.convlstm import ConvLSTMCell
from plasm.tasks import ScheduledSampling

from ._benchmarks import CALTECH, HUMAN36M, KTH, MMNIST, SAMPLING, TAXIBJ, recipes
from ._family import Family, paper
from ._patch_rnn import PATCH_ADAPTERS, PatchRNN, openstl_arguments, rename
from ._recurrent import Inputs

__all__ = ["ConvLSTM", "checkpoint_filter_fn"]


class ConvLSTM(PatchRNN):
    """A stack of ``ConvLSTMCell``; for the arguments see ``PatchRNN``. Layers may have different ``hidden_dims``."""

    cell = ConvLSTMCell

    def step(self, inputs: Inputs, state: Any) -> tuple[Tensor, Any]:
        """One step; the state is h and c of each layer."""
        cells: list[Any] = list(self.cells)
        states: list[Any] = [None] * len(cells) if state is None else list(state[0])
        gates = inputs[0]
        for index, cell in enumerate(cells):
            gates = cell.project(states[index - 1][0]) if index else gates
            states[index] = cell.step(gates, states[index])
        return states[-1][0], (states,)


def checkpoint_filter_fn(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Give OpenSTL's tensors the names of a ``ConvLSTM``, without two convolutions a cell that its code never uses."""
    return rename(state_dict, "cell_list.", unused=r"^cell_list\.\d+\.(conv_o|conv_last)\.")


FAMILY = Family(
    module=__name__,
    **paper("shi2015convlstm"),
    url="https://arxiv.org/abs/1506.04214",
    # OpenSTL's (commit c74deb5), file by file of its configs.
    recipes=recipes(
        "convlstm",
        lr={"mmnist": 5e-4, "taxibj": 5e-4, "human36m": 1e-4, "caltech": 5e-3, "kth": 1e-3},
        **SAMPLING,
    ),
    adapters=PATCH_ADAPTERS,
    task=ScheduledSampling,
    checkpoint_filter_fn=checkpoint_filter_fn,
    openstl={"convlstm": openstl_arguments},
)
default_cfgs = FAMILY.default_cfgs

# Patches as in OpenSTL's configurations.
convlstm_mmnist = FAMILY.register(ConvLSTM, "convlstm_mmnist", **MMNIST, patch_size=4)
convlstm_taxibj = FAMILY.register(ConvLSTM, "convlstm_taxibj", **TAXIBJ, patch_size=2)
convlstm_human36m = FAMILY.register(ConvLSTM, "convlstm_human36m", **HUMAN36M, patch_size=4)
convlstm_caltech = FAMILY.register(ConvLSTM, "convlstm_caltech", **CALTECH, patch_size=2)
convlstm_kth = FAMILY.register(ConvLSTM, "convlstm_kth", **KTH, patch_size=2)
convlstm_mmnist_tiny = FAMILY.register(
    ConvLSTM, "convlstm_mmnist_tiny", **MMNIST, patch_size=8, hidden_dims=(32, 32, 32, 32)
)
