"""The blocks that a translator of SimVP's family can be made of, by name.

Shapes: N clips, C = dim channels, H x W positions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from timm.layers import GroupNorm1, LayerNorm2d, Mlp
from timm.models.convnext import ConvNeXtBlock
from timm.models.metaformer import Pooling
from torch import Tensor, nn

from .conv_mixer import ConvMixerBlock
from .gated_aggregation import ChannelAggregation, MultiOrderGatedAggregation
from .gated_attention import GatedSpatiotemporalAttention
from .large_kernel_attention import LargeKernelAttention
from .metaformer import DepthwiseMlp, MetaFormerBlock, init_fan_out_
from .recursive_gated_conv import RecursiveGatedConv
from .temporal_attention import TemporalAttention
from .token_blocks import MLPMixerBlock, SwinBlock, ViTBlock
from .uniformer import UniFormerBlock


@dataclass(frozen=True)
class BlockPosition:
    """Position of a block in a translator, and the options that all of its blocks share.

    Attributes:
        dim: Channels in.
        out_dim: Channels out.
        index: How many blocks come before it.
        size: (H, W).
        mlp_ratio: Width of the MLP, in multiples of ``dim``.
        drop: Dropout rate.
        drop_path: Chance that a clip skips a branch in training.
        dd: ``device`` and ``dtype`` of the parameters.
    """

    dim: int
    out_dim: int
    index: int
    size: tuple[int, int]
    mlp_ratio: float
    drop: float
    drop_path: float
    dd: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hidden_dim(self) -> int:
        """Channels within the MLP."""
        return int(self.dim * self.mlp_ratio)

    @property
    def rates(self) -> dict[str, Any]:
        """What the blocks of tokens take besides their size."""
        return {"mlp_ratio": self.mlp_ratio, "drop": self.drop, "drop_path": self.drop_path, **self.dd}


def _depthwise(mixer: type[LargeKernelAttention]) -> Callable[[BlockPosition], nn.Module]:
    def create(at: BlockPosition) -> nn.Module:
        mlp = DepthwiseMlp(at.dim, at.hidden_dim, at.drop, **at.dd)
        return MetaFormerBlock(at.dim, mixer(at.dim, **at.dd), mlp, drop_path=at.drop_path, **at.dd)

    return create


def _convnext(at: BlockPosition) -> nn.Module:
    block = ConvNeXtBlock(at.dim, mlp_ratio=at.mlp_ratio, conv_mlp=True, drop_path=at.drop_path, **at.dd)
    init_fan_out_(block)
    return block


def _hornet(at: BlockPosition) -> nn.Module:
    mlp = Mlp(at.dim, at.hidden_dim, use_conv=True, **at.dd)
    mixer = RecursiveGatedConv(at.dim, **at.dd)
    return MetaFormerBlock(at.dim, mixer, mlp, LayerNorm2d, 1e-6, at.drop_path, **at.dd)


def _moganet(at: BlockPosition) -> nn.Module:
    mlp = ChannelAggregation(at.dim, at.hidden_dim, at.drop, **at.dd)
    mixer = MultiOrderGatedAggregation(at.dim, **at.dd)
    return MetaFormerBlock(at.dim, mixer, mlp, nn.BatchNorm2d, 1e-5, at.drop_path, **at.dd)


def _poolformer(at: BlockPosition) -> nn.Module:
    mlp = Mlp(at.dim, at.hidden_dim, drop=at.drop, use_conv=True, **at.dd)
    return MetaFormerBlock(at.dim, Pooling(), mlp, GroupNorm1, 1e-5, at.drop_path, **at.dd)


def _uniformer(at: BlockPosition) -> nn.Module:
    return UniFormerBlock(at.dim, attention=at.dim == at.out_dim and at.index > 0, **at.rates)


BLOCKS: dict[str, Callable[[BlockPosition], nn.Module]] = {
    "gsta": _depthwise(GatedSpatiotemporalAttention),
    "tau": _depthwise(TemporalAttention),
    "van": _depthwise(LargeKernelAttention),
    "convmixer": lambda at: ConvMixerBlock(at.dim, **at.dd),
    "convnext": _convnext,
    "hornet": _hornet,
    "mlpmixer": lambda at: MLPMixerBlock(at.dim, at.size, **at.rates),
    "moganet": _moganet,
    "poolformer": _poolformer,
    "swin": lambda at: SwinBlock(at.dim, at.size, at.index % 2 == 1, **at.rates),
    "uniformer": _uniformer,
    "vit": lambda at: ViTBlock(at.dim, **at.rates),
}
"""By name: what makes a block. ConvMixer and HorNet know no dropout, ConvMixer has no MLP."""


class TranslatorBlock(nn.Module):
    """A block of ``BLOCKS``, and a 1x1 convolution where its channels are not those of the next.

    Args:
        name: Of ``BLOCKS``.
        at: Where it stands.
    """

    def __init__(self, name: str, at: BlockPosition) -> None:
        super().__init__()
        self.block = BLOCKS[name](at)
        self.reduction: nn.Module = nn.Identity()
        if at.dim != at.out_dim:
            self.reduction = nn.Conv2d(at.dim, at.out_dim, 1, **at.dd)

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim, H, W) -> (N, out_dim, H, W)."""
        return self.reduction(self.block(x))
