"""PredRNN and PredRNNv2: layers of ST-LSTMs, through which one memory zigzags.

Papers: Wang, Long, Wang, Gao, Yu, NeurIPS 2017; Wang, Wu, Zhang, Gao, Wang, Yu, Long, TPAMI 2023, arXiv 2103.09504 (v2:
decoupled memories, reverse scheduled sampling).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plasm.layers.cpu_grads import Conv2d
from plasm.layers.st_lstm import SpatioTemporalLSTMCell

from .convlstm import PATCHES
from .family import Family
from .patch_rnn import PATCH_ADAPTERS, PatchRNN, openstl_arguments, rename
from .recurrent import LARGEST, Inputs, same_dims
from .registration import TINY, TINY_SAMPLING_STOP, input_sizes, recipes, register_benchmarks

__all__ = ["PredRNN", "PredRNNv2", "checkpoint_filter_fn", "from_openstl"]


class PredRNN(PatchRNN):
    """A stack of ``SpatioTemporalLSTMCell``; for the arguments see ``PatchRNN``. All ``hidden_dims`` are the same."""

    def make_cells(self, kernel_size: int, size: tuple[int, int] | None, dd: dict[str, Any]) -> list[nn.Module]:
        """The cells, from the bottom up."""
        dim = same_dims(self.hidden_dims, type(self).__name__)
        ins = [self.patch_dim] + [dim] * (len(self.hidden_dims) - 1)
        return [SpatioTemporalLSTMCell(before, dim, kernel_size, size, **dd) for before in ins]

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

    def hidden_states(self, state: Any) -> list[Tensor]:
        """H of each layer."""
        return [h for h, _ in state[0]]


class PredRNNv2(PredRNN):
    """PredRNN, trained with decoupled memories, Section 3.3: what a step adds to c and to m is kept apart.

    Args:
        in_chans: See ``PatchRNN``.
        in_frames: See ``PatchRNN``.
        out_frames: See ``PatchRNN``.
        img_size: See ``PatchRNN``.
        patch_size: See ``PatchRNN``.
        hidden_dims: See ``PatchRNN``; all the same.
        kernel_size: See ``PatchRNN``.
        layer_norm: See ``PatchRNN``.
        reverse_sampling: See ``PatchRNN``.
        sampling_stop: See ``PatchRNN``.
        sampling_alpha: See ``PatchRNN``.
        decouple_weight: Of the decoupling loss.
        device: Device of the parameters.
        dtype: Data type of the parameters.
    """

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
        reverse_sampling: bool = True,
        sampling_stop: int = 50_000,
        sampling_alpha: float | None = None,
        decouple_weight: float = 0.1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_chans, in_frames, out_frames, img_size, patch_size, hidden_dims, kernel_size, layer_norm,
            reverse_sampling, sampling_stop, sampling_alpha, device, dtype,
        )  # fmt: skip
        self.decouple_weight = decouple_weight
        dim = self.hidden_dims[0]
        self.adapter = Conv2d(dim, dim, 1, bias=False, device=device, dtype=dtype)

    def step_loss(self, state: Any) -> Tensor:
        """Eq. 7: the mean over layers, clips and channels of |cos| between the two increments, which a 1x1 adapts."""
        _, _, deltas = state
        both = self.adapter(torch.cat([torch.cat(pair) for pair in deltas])).float().flatten(2)
        delta_c, delta_m = both.unflatten(0, (len(deltas), 2, -1)).unbind(1)
        return self.decouple_weight * F.cosine_similarity(delta_c, delta_m, dim=-1).abs().mean()


def checkpoint_filter_fn(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Give OpenSTL's tensors the names of a ``PredRNN``; what has them already stays as it is."""
    return rename(state_dict, "cell_list.")


def from_openstl(config: Mapping[str, Any]) -> nn.Module:
    """Build what a configuration of OpenSTL describes; see ``plasm.models.openstl.read_config``.

    Raises:
        ValueError: If a value is none that the model takes.
    """
    args = openstl_arguments(config, reverse=config["method"] == "predrnnv2")
    if config["method"] == "predrnnv2":
        args["decouple_weight"] = float(config.get("decouple_beta", 0.1))
        return _MODELS["predrnnv2_mmnist"](**args)
    return _MODELS["predrnn_mmnist"](**args)


FAMILY = Family(
    title="PredRNN: A Recurrent Neural Network for Spatiotemporal Predictive Learning",
    authors="Yunbo Wang, Haixu Wu, Jianjin Zhang, Zhifeng Gao, Jianmin Wang, Philip S. Yu, Mingsheng Long",
    url="https://arxiv.org/abs/2103.09504",
    citation="""@article{wang2023predrnn,
  title   = {{PredRNN}: A Recurrent Neural Network for Spatiotemporal Predictive Learning},
  author  = {Wang, Yunbo and Wu, Haixu and Zhang, Jianjin and Gao, Zhifeng and Wang, Jianmin and Yu, Philip S. and
             Long, Mingsheng},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  volume  = {45},
  number  = {2},
  pages   = {2208--2225},
  year    = {2023}
}""",
    # OpenSTL's (commit c74deb5), file by file of its configs.
    recipes={
        **recipes("predrnn", lr={"mmnist": 5e-4, "taxibj": 1e-4, "human36m": 1e-4, "caltech": 1e-2, "kth": 1e-3}),
        **recipes("predrnnv2", lr={"mmnist": 5e-4, "taxibj": 5e-4, "human36m": 1e-4, "caltech": 1e-3, "kth": 1e-3}),
    },
    adapters=PATCH_ADAPTERS,
    largest=LARGEST,
    checkpoint_filter_fn=checkpoint_filter_fn,
)

_TINY: dict[str, Any] = {"patch_size": 8, "hidden_dims": (21, 21, 21, 21), "sampling_stop": TINY_SAMPLING_STOP}

default_cfgs = FAMILY.default_cfgs(input_sizes("predrnn", "predrnnv2", tiny=("predrnn",)))

# OpenSTL's configuration for KTH decouples less.
_DECOUPLED = {**PATCHES, "kth": {**PATCHES["kth"], "decouple_weight": 0.01}}

_MODELS: dict[str, Any] = {
    **register_benchmarks(FAMILY, PredRNN, "predrnn", {**PATCHES, TINY: _TINY}, __name__),
    **register_benchmarks(FAMILY, PredRNNv2, "predrnnv2", _DECOUPLED, __name__),
}
globals().update(_MODELS)
