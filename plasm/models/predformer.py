"""PredFormer: gated transformer blocks alone, over the patches of a frame, over time, or over both.

Paper: Tang, Qi, Xie, Li, Ma, Yang, "Video Prediction Transformers without Recurrence or Convolution", arXiv 2410.04733.
Written from the paper alone, but for sizes and rates that the authors' configurations have.

Shapes: B clips, T input frames, T' output frames, C channels, H x W pixels, p patch side, h = H / p, w = W / p,
D channels of a token.
"""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from plasm.layers.conv import run_block
from plasm.layers.gated_transformer import GatedTransformerBlock, sinusoid

from ._adapters import adapt_in_channels, adapt_out_channels
from ._base import VideoModel, check_chances, check_positive, match_layers
from ._benchmarks import HUMAN36M, MMNIST, TAXIBJ, recipes
from ._family import Family, paper
from ._recurrent import patchify, unpatchify

__all__ = ["PredFormer", "block_axes"]


def block_axes(order: str, depth: int) -> str:
    """Over what each block attends: a letter each, S for the positions of a frame, T for time, F for both at once.

    Args:
        order: Of the paper's variants: "F" (full attention); "S|T" or "T|S" (factorised: half of the depth each); the
            letters of a group that repeats: "ST", "TS" (binary), "STS", "TST" (triplet), "STTS", "TSST" (quadruplet).
        depth: Blocks.

    Raises:
        ValueError: If there are other letters, or the depth is no multiple of the parts of ``order``.
    """
    parts = order.split("|")
    if not all(parts) or set(order) - set("STF|"):
        raise ValueError(f'order has the letters S, T and F, such as "TSST", or parts such as "S|T", got {order!r}')
    each, rest = divmod(depth, len(parts))
    if rest or any(each % len(part) for part in parts):
        raise ValueError(f"the order {order!r} does not fit {depth} blocks: each part repeats as a whole")
    return "".join(part * (each // len(part)) for part in parts)


class PredFormer(VideoModel):
    """T frames to T: as many tokens come out as go in. Fewer are cut from them; for more, whole forecasts are fed back.

    A model of T' < T goes on from its first T' frames alone, for it learned no others.

    Position embeddings are fixed sines: the sum of those of a patch in the frame (half of the channels for the row,
    half for the column) and of its frame. The paper says that they are sinusoidal and absolute, in space and time, and
    not how the axes are put together.

    Args:
        in_chans: C.
        in_frames: T.
        out_frames: T', any number.
        patch_size: p.
        dim: D, a multiple of four.
        depth: Blocks.
        order: Over what they attend; see ``block_axes``.
        num_heads: Heads of each block.
        expansion: Width of the SwiGLUs, in multiples of D.
        drop_rate: Dropout rate of the blocks.
        drop_path_rate: Chance that a clip skips a branch in training, of every block the same.
        device: Device of the parameters.
        dtype: Data type of the parameters.

    Raises:
        ValueError: If a count is not positive, ``order`` does not fit the depth, or the heads do not divide D, or four
            does not.
    """

    adaptable = ("in_chans", "in_frames")
    head_modules = ("norm", "readout")
    group_matcher = match_layers(r"^embed", r"^blocks", r"^norm|^readout")

    def __init__(
        self,
        in_chans: int = 1,
        in_frames: int = 10,
        out_frames: int = 10,
        patch_size: int = 8,
        dim: int = 256,
        depth: int = 32,
        order: str = "TSST",
        num_heads: int = 8,
        expansion: int = 4,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_chans, in_frames, out_frames)
        check_positive(patch_size=patch_size, dim=dim, depth=depth, num_heads=num_heads, expansion=expansion)
        check_chances(drop_rate=drop_rate, drop_path_rate=drop_path_rate)
        if dim % 4:
            raise ValueError(f"sines and cosines of two axes take a multiple of four channels, got {dim}")
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.size_multiple, self.axes = patch_size, block_axes(order, depth)
        self.grad_checkpointing = False
        patch_dim = patch_size**2 * in_chans
        self.embed = nn.Linear(patch_dim, dim, **dd)
        self.blocks = nn.ModuleList(
            GatedTransformerBlock(dim, num_heads, expansion, drop_rate, drop_path_rate, **dd) for _ in self.axes
        )
        self.norm = nn.LayerNorm(dim, **dd)
        self.readout = nn.Linear(dim, patch_dim, **dd)
        self.set_features({f"blocks.{index}": dim for index in range(depth)}, patch_size)

    @property
    def feedback_frames(self) -> int:
        """As the base class has it."""
        return min(self.in_frames, self.out_frames)

    def forecast(self, clip: Tensor, num_frames: int) -> Tensor:
        """As the base class has it; where T' >= T, whole forecasts of T frames are fed back, and the last is cut."""
        if self.out_frames < self.in_frames and num_frames > self.out_frames:
            # No loss ever saw the network's frames after T'.
            return super().forecast(clip, num_frames)
        forecasts = [self._next(clip)]
        while len(forecasts) * self.in_frames < num_frames:
            forecasts.append(self._next(forecasts[-1]))
        return torch.cat(forecasts, 1)[:, :num_frames]

    def forward_blocks(self, clip: Tensor, num_blocks: int | None = None) -> list[Tensor]:
        """Outputs of the first blocks, (B * T, D, h, w) each, of a clip (B, T, C, H, W)."""
        x, size = self._embed(clip)
        outputs: list[Tensor] = []
        for axis, block in zip(self.axes[:num_blocks], self.blocks, strict=False):
            x = self._attend(axis, block, x)
            outputs.append(rearrange(x, "b t (h w) d -> (b t) d h w", h=size[0]))
        return outputs

    def _next(self, clip: Tensor) -> Tensor:
        """(B, T, C, H, W) to the T frames that follow."""
        x, size = self._embed(clip)
        for axis, block in zip(self.axes, self.blocks, strict=True):
            x = self._attend(axis, block, x)
        patches = rearrange(self.readout(self.norm(x)), "b t (h w) d -> (b t) d h w", h=size[0])
        frames = self.crop(unpatchify(patches, self.size_multiple), clip)
        return frames.unflatten(0, (-1, self.in_frames))

    def _embed(self, clip: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, T, C, H, W) to tokens (B, T, h w, D) with their positions, and (h, w)."""
        patches = patchify(self.pad_clip(clip).flatten(0, 1), self.size_multiple)
        height, width = patches.shape[-2:]
        x = self.embed(rearrange(patches, "(b t) d h w -> b t (h w) d", t=self.in_frames))
        dim = self.num_features
        rows, columns = (sinusoid(side, dim // 2, x.device) for side in (height, width))
        positions = torch.cat([
            rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)
        ], -1).flatten(0, 1)  # fmt: skip
        times = sinusoid(self.in_frames, dim, x.device)
        return x + (times[:, None] + positions).to(x.dtype), (height, width)

    def _attend(self, axis: str, block: nn.Module, x: Tensor) -> Tensor:
        """One block over an axis of (B, T, L, D)."""
        batch, frames, positions = x.shape[:3]
        if axis == "S":
            x = run_block(block, x.flatten(0, 1), recompute=self.grad_checkpointing)
            return x.unflatten(0, (batch, frames))
        if axis == "T":
            x = run_block(block, x.transpose(1, 2).flatten(0, 1), recompute=self.grad_checkpointing)
            return x.unflatten(0, (batch, positions)).transpose(1, 2)
        return run_block(block, x.flatten(1, 2), recompute=self.grad_checkpointing).unflatten(1, (frames, positions))


FAMILY = Family(
    module=__name__,
    **paper("tang2024predformer"),
    url="https://arxiv.org/abs/2410.04733",
    # The scripts of its authors' code (commit 595a478).
    recipes=recipes(
        "predformer",
        tiny={},
        benchmarks=("mmnist", "taxibj", "human36m"),
        lr=1e-3,
        optimizer="adamw",
        weight_decay=0.01,
        epochs={"mmnist": 2000, "taxibj": 200},
        schedule={"taxibj": "onecycle"},
        warmup_epochs={"taxibj": 0},
        batch_size={"human36m": 8},
    ),
    adapters={
        "embed.weight": lambda w, model: adapt_in_channels(w, model.in_chans, model.size_multiple**2),
        "readout.*": lambda t, model: adapt_out_channels(t, model.out_chans, model.size_multiple**2),
    },
    largest={"depth": 256},
)
default_cfgs = FAMILY.default_cfgs

# 32 blocks are the paper's 33.7 M on Moving MNIST. On TaxiBJ and Human3.6M the authors' configurations have TSST twice
# and three times, and these rates. (Their script for TaxiBJ has order="STS" with nine blocks.)
predformer_mmnist = FAMILY.register(PredFormer, "predformer_mmnist", **MMNIST, patch_size=8, depth=32)
predformer_taxibj = FAMILY.register(
    PredFormer, "predformer_taxibj", **TAXIBJ, patch_size=4, depth=8, drop_rate=0.1, drop_path_rate=0.1
)
predformer_human36m = FAMILY.register(
    PredFormer, "predformer_human36m", **HUMAN36M, patch_size=8, depth=12, drop_rate=0.1, drop_path_rate=0.1
)
predformer_mmnist_tiny = FAMILY.register(
    PredFormer, "predformer_mmnist_tiny", **MMNIST, patch_size=8, dim=160, depth=4, order="TSST"
)
