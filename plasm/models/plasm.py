"""PLA-SM: Pair-wise Layer Attention with Spatial Masking for Video Prediction.

Paper: Li, Zhang, Yang, Xu, Song, arXiv 2311.11289.

An Encoder turns each frame into features, a Translator turns the features of T frames into those of T' frames with
ConvNeXt blocks on the way down and Pair-wise Layer Attention on the way up, a Decoder turns features into frames.

Shapes: B clips, T input frames, T' output frames, C image channels, Cs encoder channels (C-tilde in the paper), Ct
translator channels (C-hat), H x W pixels, h = ceil(H / 2^(depth // 2)), w likewise. Pixels are floats in [0, 1].
"""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from plasm.layers.conv import Upsample, UpsampleBlock, init_conv_, init_readout_, run_block
from plasm.layers.pairwise_attention import BLOCKS, Attention, Block, PairwiseLayerAttention, Score
from plasm.layers.sparse import SparseEncoder

from ._adapters import adapt_in_frames, adapt_out_channels, adapt_out_frames
from ._base import VideoModel, check_positive
from ._benchmarks import CALTECH, HUMAN36M, KTH, MMNIST, TAXIBJ
from ._family import Family, paper

__all__ = ["PLASM", "Decoder", "Translator"]


class Translator(nn.Module):
    """N ConvNeXt blocks, then N PLA blocks that pair with them in reverse, Section III-D.

    The text feeds S, with T * Cs channels, to blocks of Ct channels: a 1x1 convolution, ``in_proj``, joins them. PLA
    block j (from 1) takes the output of ConvNeXt block N + 1 - j as its low layer and the output of PLA block j - 1
    as its high layer; the first takes ConvNeXt block N as both.

    Args:
        in_dim: T * Cs.
        dim: Ct.
        out_dim: T' * Cs.
        depth: N, the number of ConvNeXt blocks and of PLA blocks.
        num_heads: Heads of each PLA block (Table XI).
        attention: Form of each PLA block; "none" leaves the attention out (Table VI).
        score: See ``PairwiseLayerAttention``.
        residual: See ``PairwiseLayerAttention``.
        block: "convnext", or "conv7x7", the baseline of Table X.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        out_dim: int,
        depth: int = 4,
        num_heads: int = 2,
        attention: Attention = "global",
        score: Score = "cosine",
        residual: bool = False,
        block: Block = "convnext",
        **dd: Any,
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.in_proj = init_conv_(nn.Conv2d(in_dim, dim, 1, **dd))
        # PairwiseLayerAttention names the valid blocks; build it first so that a wrong name is reported by it.
        self.pla = nn.ModuleList(
            PairwiseLayerAttention(dim, num_heads, attention, score, residual, block, **dd) for _ in range(depth)
        )
        self.convnext = nn.ModuleList(BLOCKS[block](dim, **dd) for _ in range(depth))
        self.out_proj = init_conv_(nn.Conv2d(dim, out_dim, 1, **dd))

    def forward_blocks(self, x: Tensor, num_blocks: int | None = None) -> list[Tensor]:
        """Outputs of the first ``num_blocks`` (all by default) of the 2N blocks.

        Args:
            x: (B, T * Cs, h, w).
            num_blocks: How many blocks to run.

        Returns:
            z1 ... zN, then the outputs of the PLA blocks, (B, Ct, h, w) each.
        """
        depth = len(self.convnext)
        x = self.in_proj(x)
        outputs: list[Tensor] = []
        for index in range(depth + len(self.pla) if num_blocks is None else num_blocks):
            if index < depth:
                x = run_block(self.convnext[index], x, recompute=self.grad_checkpointing)
            else:
                low = outputs[2 * depth - 1 - index]
                x = run_block(self.pla[index - depth], low, x, recompute=self.grad_checkpointing)
            outputs.append(x)
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, T * Cs, h, w) -> (B, T' * Cs, h, w)."""
        return self.out_proj(self.forward_blocks(x)[-1])


class Decoder(nn.Module):
    """M blocks of 3x3 transposed convolution, GroupNorm, LeakyReLU, and a 1x1 convolution, Section III-E.

    Args:
        dim: Cs.
        out_chans: C.
        depth: M; the strides are those of an encoder of that depth, in reverse.
        upsample: "transposed" as in the text, or "pixelshuffle" as in the authors' code.
    """

    def __init__(self, dim: int, out_chans: int, depth: int = 4, upsample: Upsample = "transposed", **dd: Any) -> None:
        super().__init__()
        self.grad_checkpointing = False
        strides = [1 + index % 2 for index in reversed(range(depth))]
        self.blocks = nn.ModuleList(UpsampleBlock(dim, stride, upsample, **dd) for stride in strides)
        self.readout = init_readout_(nn.Conv2d(dim, out_chans, 1, **dd))

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Decode features.

        Args:
            x: (N, Cs, h, w).
            skip: (N, Cs, H, W), added to the input of the last block, which runs at full size.

        Returns:
            (N, C, H, W), with H = h * 2^(depth // 2), and W likewise.
        """
        for index, block in enumerate(self.blocks):
            if skip is not None and index == len(self.blocks) - 1:
                x = x + skip
            x = run_block(block, x, recompute=self.grad_checkpointing)
        return self.readout(x)


class PLASM(VideoModel):
    """PLA-SM in its second phase: predicts T' frames from T (Fig. 1, Section III).

    Args:
        in_chans: C.
        in_frames: T.
        out_frames: T'.
        out_chans: Channels of the output; C by default.
        encoder_dim: Cs.
        translator_dim: Ct.
        encoder_depth: M, blocks of the Encoder and of the Decoder; every second one halves (doubles) H and W.
        translator_depth: N, ConvNeXt blocks and PLA blocks of the Translator.
        num_heads: Heads of each PLA block (Table XI).
        attention: "global" (the paper's choice), "channel", "spatial", or "none": without PLA (Table VI); see
            ``PairwiseLayerAttention``.
        score: "cosine", "sigmoid", or "softmax" over the heads; see ``PairwiseLayerAttention``.
        residual: Add the high layer to the output of each PLA block. Not in the text; for ablation.
        block: "convnext", or "conv7x7": a plain convolution in place of every ConvNeXt block (Table X).
        upsample: "transposed" (the text) or "pixelshuffle" (the authors' code).
        skip: Add the Encoder's first features, of frame t, to the Decoder's last block for output frame t; those of
            frame T where t is later. Not in Fig. 1.
        device: Device of the parameters.
        dtype: Data type of the parameters.

    Raises:
        ValueError: If an option is unknown, or the heads do not divide ``translator_dim``.
    """

    head_modules = ("translator.out_proj", "decoder")
    adaptable = ("in_chans", "in_frames")

    def __init__(
        self,
        in_chans: int = 1,
        in_frames: int = 10,
        out_frames: int = 10,
        out_chans: int | None = None,
        encoder_dim: int = 64,
        translator_dim: int = 512,
        encoder_depth: int = 4,
        translator_depth: int = 4,
        num_heads: int = 2,
        attention: Attention = "global",
        score: Score = "cosine",
        residual: bool = False,
        block: Block = "convnext",
        upsample: Upsample = "transposed",
        skip: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_chans, in_frames, out_frames, out_chans)
        check_positive(
            encoder_dim=encoder_dim, encoder_depth=encoder_depth, translator_dim=translator_dim,
            translator_depth=translator_depth,
        )  # fmt: skip
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.skip = skip
        self.encoder = SparseEncoder(in_chans, encoder_dim, encoder_depth, **dd)
        self.translator = Translator(
            in_frames * encoder_dim, translator_dim, out_frames * encoder_dim, translator_depth, num_heads, attention,
            score, residual, block, **dd,
        )  # fmt: skip
        self.decoder = Decoder(encoder_dim, self.out_chans, encoder_depth, upsample, **dd)
        self.size_multiple = self.encoder.reduction
        names = [f"translator.{stack}.{index}" for stack in ("convnext", "pla") for index in range(translator_depth)]
        self.set_features(dict.fromkeys(names, translator_dim), self.encoder.reduction)

    def forward(self, clip: Tensor) -> Tensor:
        """As the base class has it."""
        features, skip = self._encode(clip)
        return self.crop(self._decode(self.translator(features), skip), clip)

    def decode(self, features: Tensor, clip: Tensor | None) -> Tensor:
        """(B, Ct, h, w) to frames of the padded size, (B, T', C', H, W); ``clip`` is for a model with a skip."""
        if not self.skip:
            return self._decode(self.translator.out_proj(features), None)
        if clip is None:
            raise ValueError("a model with skip=True needs the clip: forward_head(features, clip)")
        return self._decode(self.translator.out_proj(features), self._encode(clip)[1])

    def forward_blocks(self, clip: Tensor, num_blocks: int | None = None) -> list[Tensor]:
        """z1 ... zN, then the N outputs of the PLA blocks, (B, Ct, h, w) each, of a clip (B, T, C, H, W)."""
        return self.translator.forward_blocks(self._encode(clip)[0], num_blocks)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that group parameters by layer, for timm's layer-wise learning rates."""
        stem = r"^encoder|^translator\.in_proj"
        if coarse:
            return {"stem": stem, "blocks": [(r"^translator\.(?:convnext|pla)", (0,)), (r"^translator|^decoder", (1,))]}
        # In the order in which they run.
        blocks = {name: rf"^translator\.{name}\.(\d+)" for name in ("convnext", "pla")}
        return {"stem": stem, **blocks, "head": [(r"^translator\.out_proj|^decoder", (99999,))]}

    def _decode(self, features: Tensor, skip: Tensor | None) -> Tensor:
        """(B, T' * Cs, h, w) to (B, T', C', H, W) of the padded size."""
        frames = self.decoder(rearrange(features, "b (t c) h w -> (b t) c h w", t=self.out_frames), skip)
        return rearrange(frames, "(b t) c h w -> b t c h w", t=self.out_frames)

    def _encode(self, clip: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, T, C, H, W) -> S of Section III-C, (B, T * Cs, h, w), and (B * T', Cs, H, W) where there is a skip."""
        frames = rearrange(self.pad_clip(clip), "b t c h w -> (b t) c h w")
        features, first = self.encoder.forward_skip(frames) if self.skip else (self.encoder(frames), None)
        if first is not None and self.out_frames != self.in_frames:
            partners = [min(t, self.in_frames - 1) for t in range(self.out_frames)]
            first = rearrange(first, "(b t) c h w -> b t c h w", t=self.in_frames)[:, partners].flatten(0, 1)
        return rearrange(features, "(b t) c h w -> b (t c) h w", t=self.in_frames), first


FAMILY = Family(
    module=__name__,
    **paper("li2023plasm"),
    url="https://arxiv.org/abs/2311.11289",
    # Table I and Section IV-B. An epoch sees the whole data set, and TaxiBJ has more clips than the record's default.
    # Phase 1 is the same everywhere but for r0; its schedule and phase 2's batch size are not in the paper, and are the
    # record's defaults.
    recipes={
        "plasm_mmnist": {"pretrain": {"mask_ratio": 0.96}, "train": {"epochs": 2000, "lr": 0.01}},
        # Not in the paper: what won in docs/ablations.md.
        "plasm_mmnist_tiny": {"train": {"epochs": 200, "optimizer": "muon", "lr": 0.004, "batch_size": 8}},
        "plasm_taxibj": {
            "pretrain": {"mask_ratio": 0.97, "clips_per_epoch": 19_627},
            "train": {"epochs": 50, "lr": 0.001, "schedule": "cosine", "clips_per_epoch": 19_627},
        },
        "plasm_human36m": {"pretrain": {"mask_ratio": 0.95}, "train": {"epochs": 50, "lr": 0.001}},
        "plasm_caltech": {"pretrain": {"mask_ratio": 0.95}, "train": {"epochs": 50, "lr": 0.001}},
        "plasm_kth": {"pretrain": {"mask_ratio": 0.90}, "train": {"epochs": 100, "lr": 0.001}},
    },
    first_conv="encoder.blocks.0.conv",
    adapters={
        "translator.in_proj.weight": lambda w, model: adapt_in_frames(w, model.in_frames, model.encoder.num_features),
        "translator.out_proj.*": lambda t, model: adapt_out_frames(t, model.out_frames, model.encoder.num_features),
        "decoder.readout.*": lambda t, model: adapt_out_channels(t, model.out_chans),
    },
    largest={"encoder_depth": 64, "translator_depth": 64},
)


default_cfgs = FAMILY.default_cfgs

# Table I, but for the tiny one, which trains on a laptop. (Of Caltech, Section IV-A says 10 output frames; the 40 that
# Table IV has of KTH come by ``predict``.)
plasm_mmnist = FAMILY.register(
    PLASM, "plasm_mmnist", **MMNIST,
    encoder_dim=64, translator_dim=512, encoder_depth=4, translator_depth=4, num_heads=2,
)  # fmt: skip
plasm_mmnist_tiny = FAMILY.register(
    PLASM, "plasm_mmnist_tiny", **MMNIST,
    encoder_dim=16, translator_dim=256, encoder_depth=4, translator_depth=3, num_heads=2, skip=True,
)  # fmt: skip
plasm_taxibj = FAMILY.register(
    PLASM, "plasm_taxibj", **TAXIBJ,
    encoder_dim=32, translator_dim=256, encoder_depth=2, translator_depth=4, num_heads=8,
)  # fmt: skip
plasm_human36m = FAMILY.register(
    PLASM, "plasm_human36m", **HUMAN36M,
    encoder_dim=64, translator_dim=128, encoder_depth=2, translator_depth=3, num_heads=2,
)  # fmt: skip
plasm_caltech = FAMILY.register(
    PLASM, "plasm_caltech", **CALTECH,
    encoder_dim=64, translator_dim=256, encoder_depth=2, translator_depth=3, num_heads=8,
)  # fmt: skip
plasm_kth = FAMILY.register(
    PLASM, "plasm_kth", **KTH,
    encoder_dim=32, translator_dim=128, encoder_depth=3, translator_depth=3, num_heads=2,
)  # fmt: skip
