"""Layers that stand on their own: take one, leave the rest."""

from .conv import ConvBlock, UpsampleBlock
from .conv_mixer import ConvMixerBlock
from .convnext import ConvNeXtBlock
from .gated_aggregation import ChannelAggregation, MultiOrderGatedAggregation
from .gated_attention import GatedSpatiotemporalAttention
from .inception import InceptionBlock
from .large_kernel_attention import LargeKernelAttention
from .metaformer import DepthwiseMlp, MetaFormerBlock
from .pairwise_attention import PairwiseLayerAttention
from .pixel_mask import pixel_mask_from_keys, random_pixel_mask
from .recursive_gated_conv import RecursiveGatedConv
from .sparse import SparseConv2d, SparseEncoder, SparseGroupNorm, SparseTensor
from .spatial_masking import SpatialMasking
from .temporal_attention import TemporalAttention
from .token_blocks import MLPMixerBlock, SwinBlock, ViTBlock
from .uniformer import UniFormerBlock

__all__ = [
    "ChannelAggregation",
    "ConvBlock",
    "ConvMixerBlock",
    "ConvNeXtBlock",
    "DepthwiseMlp",
    "GatedSpatiotemporalAttention",
    "InceptionBlock",
    "LargeKernelAttention",
    "MLPMixerBlock",
    "MetaFormerBlock",
    "MultiOrderGatedAggregation",
    "PairwiseLayerAttention",
    "RecursiveGatedConv",
    "SparseConv2d",
    "SparseEncoder",
    "SparseGroupNorm",
    "SparseTensor",
    "SpatialMasking",
    "SwinBlock",
    "TemporalAttention",
    "UniFormerBlock",
    "UpsampleBlock",
    "ViTBlock",
    "pixel_mask_from_keys",
    "random_pixel_mask",
]
