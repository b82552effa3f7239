"""CrevNet: an invertible autoencoder of windows of frames, and reversible modules that predict between its two ways.

Paper: Yu, Lu, Easterbrook, Fidler, "Efficient and Information-Preserving Future Frame Prediction and Beyond",
ICLR 2020, https://openreview.net/forum?id=B1eY_pVYvB.

The paper's model of Moving MNIST has an autoencoder of 36 layers and eight modules, on windows of several frames. Where
it does not say more, this is what its 5.0 M parameters come to: windows and kernels of three frames, gates as
``ReversiblePredictiveModule`` has them. Nor does it say what stands before the first frame of a clip; here it is that
frame again, so that there is a forecast of every frame but the first. Of a window's forecast the last frame alone,
which is new, is used and trained here; public code for Moving MNIST trains all of them, and feeds all back.

Shapes: as in ``recurrent``; V frames of a window, D channels of one half of the features, h = H / r, w = W / r.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from plasm.layers.reversible_predictive import ReversiblePredictiveModule
from plasm.layers.two_way_autoencoder import TwoWayAutoencoder
from plasm.tasks import ScheduledSampling

from ._benchmarks import CALTECH, HUMAN36M, KTH, MMNIST, SAMPLING, TAXIBJ, recipes
from ._family import Family, paper
from ._recurrent import Inputs, RecurrentModel

__all__ = ["CrevNet"]


class CrevNet(RecurrentModel):
    """A ``TwoWayAutoencoder`` with ``ReversiblePredictiveModule`` between its two ways.

    There is no phase 1 for it: its decoder is its encoder's inverse, and so shows what is hidden as hidden.

    Args:
        in_chans: C.
        in_frames: T.
        out_frames: T'.
        depths: Coupling blocks of each stage; see ``TwoWayAutoencoder``. r is 2 to the power of their number, and
            D = C r^2 / 2: the autoencoder keeps the volume, so that nothing else decides the width.
        num_modules: Predictive modules.
        window: V; 1 makes all convolutions two-dimensional.
        device: Device of the parameters.
        dtype: Data type of the parameters.

    Raises:
        ValueError: If a number of blocks, modules or frames is not positive.
    """

    # The channels decide the width of all its layers.
    adaptable = ("in_frames",)

    def __init__(
        self,
        in_chans: int = 1,
        in_frames: int = 10,
        out_frames: int = 10,
        depths: Sequence[int] = (4, 5, 3),
        num_modules: int = 8,
        window: int = 3,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_chans, in_frames, out_frames, None, 2 ** len(depths))
        if num_modules < 1 or window < 1:
            raise ValueError(f"num_modules and window are 1 or more, got {num_modules} and {window}")
        kernel_frames = 3 if window > 1 else 1
        self.window = window
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.autoencoder = TwoWayAutoencoder(in_chans, depths, kernel_frames, **dd)
        dim, reduction = self.autoencoder.num_features, self.autoencoder.reduction
        self.cells = nn.ModuleList(ReversiblePredictiveModule(dim, kernel_frames, **dd) for _ in range(num_modules))
        self.set_features({f"cells.{index}": window * dim for index in range(num_modules)}, reduction)

    @property
    def dynamic_size(self) -> bool:
        """Not one graph for any H and W: to prove that both ways fit takes torch many minutes."""
        return False

    def encode_frames(self, frames: Tensor) -> Inputs:
        """The frames themselves: windows are encoded, step by step."""
        return (frames,)

    def step(self, inputs: Inputs, state: Any) -> tuple[Tensor, Any]:
        """One step; the state is the last V - 1 frames, h and c of each module, and the memory."""
        (frame,) = inputs
        first: Any = ([frame] * (self.window - 1), [None] * len(self.cells), None)
        past, states, m = first if state is None else state
        seen, after = [*past, frame], []
        a, b = self.autoencoder(torch.stack(seen, 2))
        for cell, each in zip(self.cells, states, strict=True):
            b, hidden, m = cell(a, b, each, m)
            after.append(hidden)
            a, b = b, a
        return torch.cat([a, b], 1), (seen[1:], after, m)

    def decode_frames(self, features: Tensor, inputs: Inputs) -> Tensor:
        """(N, 2 D, V, h, w) to (N, C, H, W): the last of the window's frames."""
        return self.autoencoder.inverse(*features.chunk(2, 1))[:, :, -1]

    def hidden_states(self, state: Any) -> list[Tensor]:
        """H of each module, (B, V * D, h, w)."""
        return [h.transpose(1, 2).flatten(1, 2) for h, _ in state[1]]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that group parameters by layer, for timm's layer-wise learning rates."""
        stem = r"^autoencoder\.blocks\.0\."
        if coarse:
            return {"stem": stem, "blocks": [(r"^autoencoder", (0,)), (r"^cells", (1,))]}
        return {"stem": stem, "blocks": [(r"^autoencoder", (0,)), (r"^cells\.(\d+)", None)]}


FAMILY = Family(
    module=__name__,
    **paper("yu2020crevnet"),
    url="https://openreview.net/forum?id=B1eY_pVYvB",
    # OpenSTL has no configuration of it: the rate is that of its PredRNN on Moving MNIST, the rest as for the others.
    # (The authors' code shows every frame as it is, always; the paper does not say.)
    recipes=recipes(
        "crevnet",
        lr=5e-4,
        **SAMPLING,
    ),
    task=ScheduledSampling,
)
default_cfgs = FAMILY.default_cfgs

# Moving MNIST is the paper's. Elsewhere the stages are ours: frames of 32 x 32 have one less, and so as many positions.
crevnet_mmnist = FAMILY.register(CrevNet, "crevnet_mmnist", **MMNIST, depths=(4, 5, 3))
crevnet_taxibj = FAMILY.register(CrevNet, "crevnet_taxibj", **TAXIBJ, depths=(4, 5))
crevnet_human36m = FAMILY.register(CrevNet, "crevnet_human36m", **HUMAN36M, depths=(4, 5, 3))
crevnet_caltech = FAMILY.register(CrevNet, "crevnet_caltech", **CALTECH, depths=(4, 5, 3))
crevnet_kth = FAMILY.register(CrevNet, "crevnet_kth", **KTH, depths=(4, 5, 3))
crevnet_mmnist_tiny = FAMILY.register(
    CrevNet, "crevnet_mmnist_tiny", **MMNIST, depths=(1, 1, 1), num_modules=4, window=1
)
