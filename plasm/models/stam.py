"""STAM: layers of attention-based memories on the patches of two frames at a time.

Paper: Chang, Zhang, Wang, Ma, Gao, IEEE Transactions on Multimedia, 2022, https://ieeexplore.ieee.org/document/9695337.
Where its text is silent, and by default where it differs, this computes as its authors' code does.

Shapes: as in ``recurrent``; D hidden channels, reduction r of the patches' positions, h = H / (p r), w = W / (p r).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plasm.layers.folded_conv3d import FoldedConv3d
from plasm.layers.stam_cell import STAMCell
from plasm.tasks import ScheduledSampling

from ._adapters import adapt_in_channels, adapt_out_channels
from ._base import check_odd, check_positive, match_layers
from ._benchmarks import CALTECH, HUMAN36M, KTH, MMNIST, SAMPLING, TAXIBJ, recipes
from ._family import Family, paper
from ._patch_rnn import PATCH_ADAPTERS, rename
from ._recurrent import Inputs, RecurrentModel, patchify, same_dims, unpatchify
from ._untrusted import no_number, whole

__all__ = ["STAM", "checkpoint_filter_fn", "from_openstl"]

_FRAMES = 2
"""What a step works on: the frame before, and the present one."""


class STAM(RecurrentModel):
    """A stack of ``STAMCell``, through which one memory zigzags; each step sees the frame before, too (first: zeros).

    Args:
        in_chans: C.
        in_frames: T.
        out_frames: T'.
        img_size: (H, W) or one number. Clips are of this size: there are weights for each position.
        patch_size: p.
        hidden_dims: D of each layer; all the same.
        kernel_size: Side of the (odd) kernels in space.
        kernel_frames: Frames that they span, an odd number.
        reduction: r, a power of two: the cells lie between convolutions that halve h and w, and others that double them
            again; there are none where it is 1.
        tau: How many memories a forget gate attends over.
        as_paper: Attend over the c of earlier steps, as the text has it. The authors' code sees that of now alone,
            which is the default; see ``STAMCell``.
        device: Device of the parameters.
        dtype: Data type of the parameters.

    Raises:
        ValueError: If ``hidden_dims`` differ, r is no power of two, a kernel not odd, or a count not positive.
    """

    fixed_size = True
    group_matcher = match_layers(r"^encoder|^cells\.0\.conv_x", r"^cells", r"^")

    def __init__(
        self,
        in_chans: int = 1,
        in_frames: int = 10,
        out_frames: int = 10,
        img_size: int | tuple[int, int] = 64,
        patch_size: int = 4,
        hidden_dims: Sequence[int] = (32, 32, 32, 32),
        kernel_size: int = 3,
        kernel_frames: int = 3,
        reduction: int = 1,
        tau: int = 5,
        as_paper: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_chans, in_frames, out_frames, img_size, patch_size * reduction)
        if reduction < 1 or reduction & (reduction - 1) or tau < 1:
            raise ValueError(f"reduction is a power of two, and tau 1 or more; got {reduction} and {tau}")
        check_positive(patch_size=patch_size, hidden_dims=hidden_dims)
        check_odd(kernel_size=kernel_size, kernel_frames=kernel_frames)
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        dim, depth, patch_dim = same_dims(hidden_dims, "STAM"), reduction.bit_length() - 1, patch_size**2 * in_chans
        self.patch_size, self.tau, self.as_paper = patch_size, tau, as_paper
        self.encoder = nn.ModuleList(FoldedConv3d(patch_dim, patch_dim, 3, 3, 2, **dd) for _ in range(depth))
        size = (_FRAMES, *self.positions)
        self.cells = nn.ModuleList(
            STAMCell(before, dim, size, kernel_size, kernel_frames, as_paper, **dd)
            for before in (patch_dim, *[dim] * (len(hidden_dims) - 1))
        )
        self.readout = nn.Conv2d(_FRAMES * dim, patch_dim, 1, **dd)
        self.decoder = nn.ModuleList(
            nn.ConvTranspose2d(patch_dim, patch_dim, 3, 2, 1, output_padding=1, **dd) for _ in range(depth)
        )
        self.set_features(
            {f"cells.{index}": _FRAMES * dim for index in range(len(hidden_dims))}, patch_size * reduction
        )

    def encode_frames(self, frames: Tensor) -> Inputs:
        """Patches: (N, C, H, W) to (N, p^2 C, H / p, W / p). What a step makes of a frame depends on that before it."""
        return (patchify(frames, self.patch_size),)

    def step(self, inputs: Inputs, state: Any) -> tuple[Tensor, Any]:
        """One step; the state is the patches before, of each layer h and the c so far, and the m so far of all layers.

        Of those so far, no more are kept than are attended over.
        """
        patches = inputs[0]
        start: Any = (torch.zeros_like(patches), None, None)
        before, layers, past_m = start if state is None else state
        x = torch.stack([before, patches], 2)
        for conv in self.encoder:
            x = F.relu(conv(x))
        if layers is None:
            first: Any = self.cells[0]
            zeros = x.new_zeros(x.shape[0], first.dim, *x.shape[2:])
            layers, past_m = [(zeros, [zeros])] * len(self.cells), [zeros]
        kept, after = self.tau if self.as_paper else 1, []
        for cell, (h, past_c) in zip(self.cells, layers, strict=True):
            h, c, m = cell(x, h, past_c, past_m)
            after.append((h, [*past_c, c][-kept:]))
            past_m, x = [*past_m, m][-self.tau :], h
        return x.flatten(1, 2), (patches, after, past_m)

    def decode_frames(self, features: Tensor, inputs: Inputs) -> Tensor:
        """(N, 2 D, h, w) to (N, C, H, W)."""
        x = self.readout(features)
        for index, conv in enumerate(self.decoder):
            x = conv(F.relu(x) if index else x)
        return unpatchify(x, self.patch_size)

    def hidden_states(self, state: Any) -> list[Tensor]:
        """H of each layer, (B, 2 D, h, w)."""
        return [h.flatten(1, 2) for h, _ in state[1]]


_RENAMES = [
    (r"^conv_encoder\.encoder", "encoder."),
    (r"^conv_decoder\.decoder", "decoder."),
]


def checkpoint_filter_fn(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Give the tensors of the authors' code the names and shapes of a ``STAM``: 3D kernels become 2D ones.

    That code and the text have the same tensors: they load with ``as_paper``, too, for which they were not trained.
    """
    if not any(name.startswith("cell_list.") for name in state_dict):
        return dict(state_dict)
    out: dict[str, Tensor] = {}
    renamed = rename(state_dict, "cell_list.", _RENAMES)
    # The last one's number there is one too large.
    last = max((int(match[1]) for name in renamed if (match := re.match(r"decoder\.(\d+)\.", name))), default=0)
    for name, tensor in renamed.items():
        name = name.replace(f"decoder.{last}.", f"decoder.{last - 1}.")
        if tensor.ndim == 5:
            # The readout's frames come after its channels, as the features have them.
            tensor = (tensor if name.startswith("readout.") else tensor.transpose(1, 2)).flatten(1, 2)
        out[name] = tensor
    return out


def from_openstl(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What a configuration of the authors' code describes; see ``plasm.models.openstl.read_config``.

    Beside OpenSTL's keys there are ``num_layers``, ``sr_size``, ``tau``, and a ``filter_size`` of three numbers:
    frames, height, width.

    Raises:
        ValueError: If a value is none that the model takes.
    """
    _, _, height, width = config["in_shape"]
    try:
        dims = tuple(config.get("num_hidden", (32,)))
        layers = whole(config, "num_layers", len(dims) if len(dims) > 1 else 4)
        kernel, stride = (
            [whole({name: value}, name, 0) for value in _three(config.get(name, default))]
            for name, default in (("filter_size", 3), ("stride", 1))
        )
        args: dict[str, Any] = {
            "patch_size": whole(config, "patch_size", 4),
            "hidden_dims": dims * layers if len(dims) == 1 else dims,
            "reduction": whole(config, "sr_size", 1),
            "tau": whole(config, "tau", 5),
        }
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(no_number(error)) from error
    if layers != len(args["hidden_dims"]):
        raise ValueError(f"num_layers is {layers}, and num_hidden has {len(dims)} numbers")
    if len(kernel) != 3 or kernel[1] != kernel[2] or not all(side > 0 and side % 2 for side in kernel):
        raise ValueError(f"filter_size is odd, and as high as it is wide; got {config['filter_size']}")
    if set(stride) != {1}:
        raise ValueError(f"with a stride of {config['stride']} the layers' sizes would not fit")
    multiple = args["patch_size"] * args["reduction"]
    if multiple < 1 or height % multiple or width % multiple:
        raise ValueError(
            f"patches of {args['patch_size']} and an sr_size of {args['reduction']} do not divide {height} x {width}"
        )
    return "stam_mmnist", {**args, "kernel_size": kernel[1], "kernel_frames": kernel[0]}


def _three(value: Any) -> Sequence[Any]:
    """A number for each of frames, height and width, of one for all, three, or text such as "3,3,3"."""
    parts = value.replace(",", " ").split() if isinstance(value, str) else value
    parts = list(parts) if isinstance(parts, list | tuple) else [parts]
    return parts * 3 if len(parts) == 1 else parts


def _adapt_both(weight: Tensor, model: Any, frames: int = 1) -> Tensor:
    """Adapt a layer from patches, of so many frames, to patches: (p^2 C, frames * p^2 C, ...)."""
    positions = model.patch_size**2
    return adapt_out_channels(adapt_in_channels(weight, model.in_chans, frames * positions), model.out_chans, positions)


FAMILY = Family(
    module=__name__,
    **paper("chang2022stam"),
    url="https://ieeexplore.ieee.org/document/9695337",
    # The settings of its authors' code: 200,000 steps, on Moving MNIST; as many steps elsewhere.
    recipes=recipes(
        "stam",
        lr=1e-3,
        batch_size=12,
        schedule="exponential",
        warmup_epochs={"taxibj": 0},
        epochs={"taxibj": 122, "mmnist": 240, "human36m": 240, "caltech": 240, "kth": 240},
        **SAMPLING,
    ),
    adapters={
        **PATCH_ADAPTERS,
        "encoder.*.weight": lambda w, model: _adapt_both(w, model, model.encoder[0].kernel_frames),
        "decoder.*.weight": lambda w, model: _adapt_both(w.transpose(0, 1), model).transpose(0, 1),
        "*coder.*.bias": lambda b, model: adapt_out_channels(b, model.out_chans, model.patch_size**2),
    },
    task=ScheduledSampling,
    checkpoint_filter_fn=checkpoint_filter_fn,
    openstl={"stam": from_openstl},
)
default_cfgs = FAMILY.default_cfgs

# The authors' settings for Moving MNIST, the only ones that are published, for all five.
stam_mmnist = FAMILY.register(STAM, "stam_mmnist", **MMNIST)
stam_taxibj = FAMILY.register(STAM, "stam_taxibj", **TAXIBJ)
stam_human36m = FAMILY.register(STAM, "stam_human36m", **HUMAN36M)
stam_caltech = FAMILY.register(STAM, "stam_caltech", **CALTECH)
stam_kth = FAMILY.register(STAM, "stam_kth", **KTH)
stam_mmnist_tiny = FAMILY.register(STAM, "stam_mmnist_tiny", **MMNIST, patch_size=8, hidden_dims=(17, 17, 17, 17))
