"""PhyDNet: physical dynamics and what is left of them, each by a recurrent branch of its own.

Paper: Le Guen, Thome, CVPR 2020, arXiv 2003.01460.

OpenSTL keeps the states in the modules and starts them anew at the first frame of a clip; here they go in and come out.

Shapes: as in ``recurrent``; h = H / reduction, w = W / reduction.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plasm.layers.convlstm import GateConv
from plasm.layers.phycell import PhyCell
from plasm.tasks import TeacherForcing

from ._adapters import adapt_out_channels
from ._base import check_positive
from ._benchmarks import CALTECH, HUMAN36M, KTH, MMNIST, TAXIBJ, TINY_SAMPLING_STOP, recipes
from ._family import Family, paper
from ._recurrent import Inputs, RecurrentModel

__all__ = ["PhyDNet", "PhyDNetDecoder", "PhyDNetEncoder", "checkpoint_filter_fn", "from_openstl"]

_GROUPS, _SLOPE = 16, 0.2


class ConvNorm(nn.Module):
    """A 3x3 convolution, GroupNorm of 16 groups, LeakyReLU.

    The stride halves H and W; with ``transposed``, it doubles them.
    """

    def __init__(self, in_dim: int, dim: int, stride: int = 1, transposed: bool = False, **dd: Any) -> None:
        super().__init__()
        self.conv: nn.Module = (
            nn.ConvTranspose2d(in_dim, dim, 3, stride, 1, output_padding=stride - 1, **dd)
            if transposed
            else nn.Conv2d(in_dim, dim, 3, stride, 1, **dd)
        )
        self.norm = nn.GroupNorm(_GROUPS, dim, **dd)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_dim, H, W) to (N, dim, H', W')."""
        return F.leaky_relu(self.norm(self.conv(x)), _SLOPE)


class PhyDNetEncoder(nn.Module):
    """The encoder of frames: 3x3 convolutions of strides 2, 1 and reduction / 2.

    Args:
        in_chans: C.
        reduction: 2 or 4.
        dim: Channels of the features, a multiple of 32.
    """

    def __init__(self, in_chans: int, reduction: int, dim: int = 64, **dd: Any) -> None:
        super().__init__()
        self.num_features, self.reduction = dim, reduction
        half = dim // 2
        self.blocks = nn.Sequential(
            ConvNorm(in_chans, half, 2, **dd), ConvNorm(half, half, **dd), ConvNorm(half, dim, reduction // 2, **dd)
        )

    def forward(self, frames: Tensor, visible: Tensor | None = None) -> Tensor:
        """(N, C, H, W) to (N, dim, h, w); what ``visible``, bool (N, 1, H, W), hides is zeros to these layers."""
        return self.blocks(frames if visible is None else frames * visible)


class PhyDNetDecoder(nn.Module):
    """The decoder of frames: transposed 3x3 convolutions of strides 2, 1 and reduction / 2, and a sigmoid.

    Args:
        out_chans: Channels of the frames.
        reduction: 2 or 4.
        dim: Channels of the features, a multiple of 32.
    """

    def __init__(self, out_chans: int, reduction: int, dim: int = 64, **dd: Any) -> None:
        super().__init__()
        half, stride = dim // 2, reduction // 2
        self.blocks = nn.Sequential(
            ConvNorm(dim, half, 2, transposed=True, **dd), ConvNorm(half, half, transposed=True, **dd)
        )
        self.readout = nn.ConvTranspose2d(half, out_chans, 3, stride, 1, output_padding=stride - 1, **dd)

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim, h, w) to (N, out_chans, H, W), between 0 and 1."""
        return torch.sigmoid(self.readout(self.blocks(x)))


class BiasedConvLSTMCell(nn.Module):
    """A ConvLSTM whose gates come from one convolution, with bias, of [x, h]; the order is i, f, o, g.

    The convolution is split between x and h, so that many x are convolved at once.
    """

    def __init__(self, in_dim: int, dim: int, **dd: Any) -> None:
        super().__init__()
        self.conv_x = GateConv(in_dim, 4 * dim, 3, bias=True, **dd)
        self.conv_h = GateConv(dim, 4 * dim, 3, **dd)

    def step(self, gates: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """What ``conv_x`` gives, (N, 4 D, h, w), and h and c, (N, D, h, w) each or None, to h and c."""
        if state is not None:
            gates = gates + self.conv_h(state[0])
        i, f, o, g = gates.chunk(4, 1)
        c = torch.sigmoid(i) * torch.tanh(g)
        if state is not None:
            c = torch.sigmoid(f) * state[1] + c
        return torch.sigmoid(o) * torch.tanh(c), c


class PhyDNet(RecurrentModel):
    """Encoder, a physical branch (``PhyCell``) and a residual one (three ConvLSTMs) with their own codes, decoder.

    Table VII of the PLA-SM paper pretrains it: of its encoders and decoders those that all frames pass, between pixels
    and features, are the encoder and the decoder of phase 1; those of the two branches belong to what lies between.
    There is no skip from one to the other.

    Args:
        in_chans: C.
        in_frames: T.
        out_frames: T'.
        reduction: 2 or 4.
        dim: Channels of the features between encoder and decoder, a multiple of 32.
        residual_dims: Channels of the ConvLSTMs, the last of them ``dim``.
        kernel_size: Of the PhyCell's filters.
        device: Device of the parameters.
        dtype: Data type of the parameters.

    Raises:
        ValueError: If ``reduction`` is neither 2 nor 4, ``dim`` no multiple of 32, one of ``residual_dims`` not
            positive, or the last not ``dim``.
    """

    def __init__(
        self,
        in_chans: int = 1,
        in_frames: int = 10,
        out_frames: int = 10,
        reduction: int = 4,
        dim: int = 64,
        residual_dims: Sequence[int] = (128, 128, 64),
        kernel_size: int = 7,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_chans, in_frames, out_frames, None, reduction)
        if reduction not in (2, 4):
            raise ValueError(f"the reduction of PhyDNet is 2 or 4, got {reduction}")
        if dim < 1 or dim % (2 * _GROUPS):
            raise ValueError(f"the norms of PhyDNet have {_GROUPS} groups of dim / 2 channels, got dim = {dim}")
        if not residual_dims or residual_dims[-1] != dim:
            raise ValueError(f"the last of residual_dims is {dim}, the decoder's; got {list(residual_dims)}")
        check_positive(residual_dims=residual_dims)
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.encoder = PhyDNetEncoder(in_chans, reduction, dim, **dd)
        self.encoder_phys = nn.Sequential(ConvNorm(dim, dim, **dd), ConvNorm(dim, dim, **dd))
        self.encoder_res = nn.Sequential(ConvNorm(dim, dim, **dd), ConvNorm(dim, dim, **dd))
        self.phycell = PhyCell(dim, kernel_size, **dd)
        ins = (dim, *residual_dims[:-1])
        self.cells = nn.ModuleList(
            BiasedConvLSTMCell(before, after, **dd) for before, after in zip(ins, residual_dims, strict=True)
        )
        self.decoder_phys = nn.Sequential(*(ConvNorm(dim, dim, transposed=True, **dd) for _ in range(2)))
        self.decoder_res = nn.Sequential(*(ConvNorm(dim, dim, transposed=True, **dd) for _ in range(2)))
        self.decoder = PhyDNetDecoder(in_chans, reduction, dim, **dd)
        cells = {f"cells.{index}": channels for index, channels in enumerate(residual_dims)}
        self.set_features({"phycell": dim, **cells}, reduction)

    def encode_frames(self, frames: Tensor) -> Inputs:
        """(N, C, H, W) to the physical code and the first gates of the residual branch."""
        features = self.encoder(frames)
        first: Any = self.cells[0]
        return self.encoder_phys(features), first.conv_x(self.encoder_res(features))

    def step(self, inputs: Inputs, state: Any) -> tuple[Tensor, Any]:
        """One step; the state is that of the PhyCell, and h and c of each ConvLSTM."""
        physical, gates = inputs
        first: Any = (None, [None] * len(self.cells))
        h, states = first if state is None else state
        h, states = self.phycell(physical, torch.zeros_like(physical) if h is None else h), list(states)
        for index, cell in enumerate(self.cells):
            residual: Any = cell
            gates = residual.conv_x(states[index - 1][0]) if index else gates
            states[index] = residual.step(gates, states[index])
        # Channels of both branches: they are decoded, and added, only where a frame is wanted.
        return torch.cat([h, states[-1][0]], 1), (h, states)

    def decode_frames(self, features: Tensor, inputs: Inputs) -> Tensor:
        """(N, 128, h, w) to (N, C, H, W)."""
        physical, residual = features.chunk(2, 1)
        frames: Tensor = self.decoder(self.decoder_phys(physical) + self.decoder_res(residual))
        return frames

    def hidden_states(self, state: Any) -> list[Tensor]:
        """The PhyCell's state, then h of each ConvLSTM."""
        return [state[0], *(h for h, _ in state[1])]

    @property
    def derivative_filters(self) -> Tensor:
        """The filters that training holds to partial derivatives, (k^2, D, k, k)."""
        return self.phycell.derivatives.weight

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that group parameters by layer, for timm's layer-wise learning rates."""
        blocks = [(r"^encoder_|^phycell", (0,)), (r"^cells" if coarse else r"^cells\.(\d+)", (1,) if coarse else None)]
        return {"stem": r"^encoder\.", "blocks": [*blocks, (r"^decoder", (99999,))]}


_PARTS = {
    "encoder_E.c": "encoder.blocks.",
    "encoder_Ep.c": "encoder_phys.",
    "encoder_Er.c": "encoder_res.",
    "decoder_D.upc": "decoder.blocks.",
    "decoder_Dp.upc": "decoder_phys.",
    "decoder_Dr.upc": "decoder_res.",
}
_PHYCELL = {"F.conv1": "derivatives", "F.bn1": "norm", "F.conv2": "combine", "convgate": "gate"}
_SPLIT = re.compile(r"^encoder\.convcell\.cell_list\.(\d+)\.conv\.weight$")


def checkpoint_filter_fn(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Give OpenSTL's tensors the names of a ``PhyDNet``; what has them already stays as it is.

    The cells are there twice, and the matrices of moments are computed: those are left out. The convolution of [x, h]
    is split in two.
    """
    if not any(name.startswith("encoder.encoder_E.") for name in state_dict):
        return dict(state_dict)
    out: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        if name.startswith(("phycell.", "convcell.", "k2m.")):
            continue
        if match := _SPLIT.match(name):
            # A tensor has four times as many gates as h has channels.
            inputs = tensor.shape[1] - tensor.shape[0] // 4
            out[f"cells.{match[1]}.conv_x.conv.weight"] = tensor[:, :inputs].contiguous()
            out[f"cells.{match[1]}.conv_h.conv.weight"] = tensor[:, inputs:].contiguous()
            continue
        out[_ours(name)] = tensor
    return out


def _ours(name: str) -> str:
    name = name.removeprefix("encoder.")
    if name.startswith("decoder_D.upc3."):
        return name.replace("decoder_D.upc3.", "decoder.readout.")
    for theirs, ours in _PARTS.items():
        if match := re.match(rf"^{re.escape(theirs)}(\d)\.main\.([01])\.(.*)$", name):
            return f"{ours}{int(match[1]) - 1}.{('conv', 'norm')[int(match[2])]}.{match[3]}"
    for theirs, ours in _PHYCELL.items():
        name = name.replace(f"phycell.cell_list.0.{theirs}.", f"phycell.{ours}.")
    return re.sub(r"^convcell\.cell_list\.(\d+)\.conv\.bias$", r"cells.\1.conv_x.conv.bias", name)


def from_openstl(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What a configuration of OpenSTL describes; a ``patch_size`` other than 2 and 4 means 4, as there.

    Raises:
        ValueError: If a value is none that the model takes.
    """
    patch = config.get("patch_size", 4)
    if not isinstance(patch, int):
        raise ValueError(f"patch_size is a whole number, got {patch!r}")
    return "phydnet_mmnist", {"reduction": patch if patch in (2, 4) else 4}


FAMILY = Family(
    module=__name__,
    **paper("leguen2020phydnet"),
    url="https://arxiv.org/abs/2003.01460",
    # OpenSTL's (commit c74deb5), file by file of its configs.
    recipes=recipes(
        "phydnet",
        lr={"mmnist": 1e-3, "taxibj": 5e-4, "human36m": 1e-4, "caltech": 5e-3, "kth": 1e-3},
        phase_1=True,
        task_args={"forcing_steps": 208_334},
        tiny={"forcing_steps": TINY_SAMPLING_STOP},
    ),
    first_conv="encoder.blocks.0.conv",
    adapters={
        # The weight of a transposed convolution is (K, C, ...).
        "decoder.readout.weight": lambda w, model: adapt_out_channels(w.transpose(0, 1), model.out_chans).transpose(
            0, 1
        ),
        "decoder.readout.bias": lambda b, model: adapt_out_channels(b, model.out_chans),
    },
    task=TeacherForcing,
    checkpoint_filter_fn=checkpoint_filter_fn,
    openstl={"phydnet": from_openstl},
)
default_cfgs = FAMILY.default_cfgs

# Reductions as in OpenSTL's configurations.
phydnet_mmnist = FAMILY.register(PhyDNet, "phydnet_mmnist", **MMNIST, reduction=4)
phydnet_taxibj = FAMILY.register(PhyDNet, "phydnet_taxibj", **TAXIBJ, reduction=2)
phydnet_human36m = FAMILY.register(PhyDNet, "phydnet_human36m", **HUMAN36M, reduction=4)
phydnet_caltech = FAMILY.register(PhyDNet, "phydnet_caltech", **CALTECH, reduction=4)
phydnet_kth = FAMILY.register(PhyDNet, "phydnet_kth", **KTH, reduction=4)
phydnet_mmnist_tiny = FAMILY.register(PhyDNet, "phydnet_mmnist_tiny", **MMNIST, dim=32, residual_dims=(32,))
