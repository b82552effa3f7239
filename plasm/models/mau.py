"""MAU: frames encoded one by one, layers of Motion-Aware Units on their features, and a decoder.

Paper: Chang, Zhang, Wang, Ma, Ye, Xiang, Gao, NeurIPS 2021, https://openreview.net/forum?id=qwtfY-3ibt7.

Shapes: as in ``recurrent``; D hidden channels, reduction r of H and W, h = H / r.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plasm.layers.mau_cell import MAUCell
from plasm.tasks import ScheduledSampling

from ._adapters import adapt_out_channels
from ._base import check_odd, check_positive, match_layers
from ._benchmarks import CALTECH, HUMAN36M, KTH, MMNIST, SAMPLING, TAXIBJ, recipes
from ._family import Family, paper
from ._patch_rnn import rename
from ._recurrent import Inputs, RecurrentModel, same_dims
from ._untrusted import no_number, whole

__all__ = ["MAU", "MAUDecoder", "MAUEncoder", "checkpoint_filter_fn", "from_openstl"]

_SLOPE = 0.2


class MAUEncoder(nn.Module):
    """A 1x1 convolution, then 3x3 ones of stride 2, a LeakyReLU behind each.

    Args:
        in_chans: C.
        dim: D.
        depth: How often H and W are halved.
    """

    def __init__(self, in_chans: int, dim: int, depth: int, **dd: Any) -> None:
        super().__init__()
        self.num_features, self.reduction = dim, 2**depth
        self.convs = nn.ModuleList(
            [nn.Conv2d(in_chans, dim, 1, **dd), *(nn.Conv2d(dim, dim, 3, 2, 1, **dd) for _ in range(depth))]
        )

    def forward_all(self, frames: Tensor) -> list[Tensor]:
        """(N, C, H, W) to the features of each layer, (N, D, H, W) first, (N, D, h, w) last."""
        outputs: list[Tensor] = []
        for conv in self.convs:
            outputs.append(F.leaky_relu(conv(outputs[-1] if outputs else frames), _SLOPE))
        return outputs

    def forward(self, frames: Tensor, visible: Tensor | None = None) -> Tensor:
        """(N, C, H, W) to (N, D, h, w); what ``visible``, bool (N, 1, H, W), hides is zeros to these layers."""
        return self.forward_all(frames if visible is None else frames * visible)[-1]


class MAUDecoder(nn.Module):
    """Transposed 3x3 convolutions of stride 2, a LeakyReLU behind each but the last, and a 1x1 convolution.

    Args:
        dim: D.
        out_chans: Channels of the frames.
        depth: How often H and W are doubled.
    """

    def __init__(self, dim: int, out_chans: int, depth: int, **dd: Any) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.ConvTranspose2d(dim, dim, 3, 2, 1, output_padding=1, **dd) for _ in range(depth))
        self.readout = nn.Conv2d(dim, out_chans, 1, **dd)

    def forward(self, x: Tensor, skips: Sequence[Tensor] | None = None) -> Tensor:
        """Decode features.

        Args:
            x: (N, D, h, w).
            skips: What the encoder gave before each of its halvings, the largest first; each is added to the layer of
                its size. There are none in phase 1, where they would show the pixels that are hidden.

        Returns:
            (N, out_chans, H, W).
        """
        for index, conv in enumerate(self.convs):
            x = conv(x)
            if index < len(self.convs) - 1:
                x = F.leaky_relu(x, _SLOPE)
            if skips is not None:
                x = x + skips[len(self.convs) - 1 - index]
        return self.readout(x)


class MAU(RecurrentModel):
    """Motion-aware units between an encoder and a decoder.

    Table VII of the PLA-SM paper pretrains it: its encoder and decoder are those of the text, without what joins them
    ("recall"), which phase 1 leaves out.

    Args:
        in_chans: C.
        in_frames: T.
        out_frames: T'.
        img_size: (H, W) or one number. Clips are of this size: there are weights for each position.
        hidden_dims: D of each layer; all the same.
        kernel_size: Side of the (odd) kernels of the units.
        reduction: r, a power of two.
        tau: How many steps a unit looks back on.
        cell_mode: "normal" or "residual"; see ``MAUCell``.
        model_mode: "normal", or "recall": the decoder is given the encoder's features (Section 3.3).
        device: Device of the parameters.
        dtype: Data type of the parameters.

    Raises:
        ValueError: If an option is unknown, ``hidden_dims`` differ or are not positive, the kernel is not odd, or r is
            no power of two.
    """

    fixed_size = True
    group_matcher = match_layers(r"^encoder", r"^cells", r"^decoder")

    def __init__(
        self,
        in_chans: int = 1,
        in_frames: int = 10,
        out_frames: int = 10,
        img_size: int | tuple[int, int] = 64,
        hidden_dims: Sequence[int] = (64, 64, 64, 64),
        kernel_size: int = 5,
        reduction: int = 4,
        tau: int = 5,
        cell_mode: Literal["normal", "residual"] = "normal",
        model_mode: Literal["normal", "recall"] = "normal",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_chans, in_frames, out_frames, img_size, reduction)
        if model_mode not in ("normal", "recall"):
            raise ValueError(f'model_mode is "normal" or "recall", got {model_mode!r}')
        if reduction < 1 or reduction & (reduction - 1) or tau < 1:
            raise ValueError(f"reduction is a power of two, and tau 1 or more; got {reduction} and {tau}")
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        dim, depth = same_dims(hidden_dims, "MAU"), reduction.bit_length() - 1
        check_positive(hidden_dims=dim)
        check_odd(kernel_size=kernel_size)
        self.tau, self.recall = tau, model_mode == "recall"
        self.encoder = MAUEncoder(in_chans, dim, depth, **dd)
        self.cells = nn.ModuleList(MAUCell(dim, dim, self.positions, kernel_size, cell_mode, **dd) for _ in hidden_dims)
        self.decoder = MAUDecoder(dim, in_chans, depth, **dd)
        self.set_features({f"cells.{index}": dim for index in range(len(hidden_dims))}, reduction)

    def encode_frames(self, frames: Tensor) -> Inputs:
        """(N, C, H, W) to S, what the first unit makes of it, and the skips."""
        features = self.encoder.forward_all(frames)
        first: Any = self.cells[0]
        return (features[-1], *first.project(features[-1]), *(features[:-1] if self.recall else ()))

    def step(self, inputs: Inputs, state: Any) -> tuple[Tensor, Any]:
        """One step; the state is, of each layer, the last T and S, tau each, and last of all the T of now."""
        s = inputs[0]
        zeros = torch.zeros_like(s)
        layers = [([zeros] * self.tau, [zeros] * self.tau)] * len(self.cells) if state is None else state
        # Before the first step T is zeros too.
        after: list[Any] = []
        projected = (inputs[1], inputs[2])
        for index, (cell, (past_t, past_s)) in enumerate(zip(self.cells, layers, strict=True)):
            unit: Any = cell
            t, s_next = unit.step(past_t[-1], s, projected if index == 0 else unit.project(s), past_t, past_s)
            after.append(([*past_t, t][-self.tau :], [*past_s, s][-self.tau :]))
            s = s_next
        return s, after

    def decode_frames(self, features: Tensor, inputs: Inputs) -> Tensor:
        """(N, D, h, w) to (N, C, H, W)."""
        frames: Tensor = self.decoder(features, inputs[3:] if self.recall else None)
        return frames

    def hidden_states(self, state: Any) -> list[Tensor]:
        """T of each layer."""
        return [past_t[-1] for past_t, _ in state]


_RENAMES = [
    (r"^encoders\.(\d+)\.encoder_t(?:_conv)?-?\d+\.", r"encoder.convs.\1."),
    (r"^decoders\.(\d+)\.c_decoder\d+\.", r"decoder.convs.\1."),
    (r"^srcnn\.0\.", "decoder.readout."),
]


def checkpoint_filter_fn(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Give OpenSTL's tensors the names of a ``MAU``, without two convolutions that its code never uses."""
    return rename(state_dict, "cell_list.", _RENAMES, unused=r"^(merge|conv_last_sr)\.")


def from_openstl(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What a configuration of OpenSTL describes; see ``plasm.models.openstl.read_config``.

    Raises:
        ValueError: If a value is none that the model takes.
    """
    _, _, height, width = config["in_shape"]
    try:
        args: dict[str, Any] = {
            "hidden_dims": tuple(config.get("num_hidden", (64, 64, 64, 64))),
            "kernel_size": whole(config, "filter_size", 5),
            "reduction": whole(config, "sr_size", 4),
            "tau": whole(config, "tau", 5),
            "cell_mode": str(config.get("cell_mode", "normal")),
            "model_mode": str(config.get("model_mode", "normal")),
        }
        patch, stride = whole(config, "patch_size", 1), whole(config, "stride", 1)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(no_number(error)) from error
    if patch != 1 or stride != 1:
        raise ValueError(f"OpenSTL's MAU runs with patch_size 1 and stride 1 alone, got {patch} and {stride}")
    if height % args["reduction"] or width % args["reduction"]:
        raise ValueError(f"sr_size {args['reduction']} does not divide {height} x {width}, as OpenSTL needs it")
    return "mau_mmnist", args


FAMILY = Family(
    module=__name__,
    **paper("chang2021mau"),
    url="https://openreview.net/forum?id=qwtfY-3ibt7",
    # OpenSTL's (commit c74deb5), file by file of its configs.
    recipes=recipes(
        "mau",
        lr={"mmnist": 1e-3, "taxibj": 1e-3, "human36m": 1e-4, "caltech": 1e-3, "kth": 5e-4},
        phase_1=True,
        **SAMPLING,
    ),
    first_conv="encoder.convs.0",
    adapters={"decoder.readout.*": lambda t, model: adapt_out_channels(t, model.out_chans)},
    task=ScheduledSampling,
    checkpoint_filter_fn=checkpoint_filter_fn,
    openstl={"mau": from_openstl},
)
default_cfgs = FAMILY.default_cfgs

# Reductions as in OpenSTL's configurations.
mau_mmnist = FAMILY.register(MAU, "mau_mmnist", **MMNIST, reduction=4)
mau_taxibj = FAMILY.register(MAU, "mau_taxibj", **TAXIBJ, reduction=2)
mau_human36m = FAMILY.register(MAU, "mau_human36m", **HUMAN36M, reduction=4)
mau_caltech = FAMILY.register(MAU, "mau_caltech", **CALTECH, reduction=2)
mau_kth = FAMILY.register(MAU, "mau_kth", **KTH, reduction=2)
mau_mmnist_tiny = FAMILY.register(MAU, "mau_mmnist_tiny", **MMNIST, reduction=4, hidden_dims=(16, 16, 16, 16))
