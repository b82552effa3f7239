"""Layers that stand on their own: take one, leave the rest."""

from .conv import ConvBlock, UpsampleBlock
from .convnext import ConvNeXtBlock
from .pairwise_attention import PairwiseLayerAttention
from .pixel_mask import pixel_mask_from_keys, random_pixel_mask
from .sparse import SparseConv2d, SparseEncoder, SparseGroupNorm, SparseTensor
from .spatial_masking import SpatialMasking

__all__ = [
    "ConvBlock",
    "ConvNeXtBlock",
    "PairwiseLayerAttention",
    "SparseConv2d",
    "SparseEncoder",
    "SparseGroupNorm",
    "SparseTensor",
    "SpatialMasking",
    "UpsampleBlock",
    "pixel_mask_from_keys",
    "random_pixel_mask",
]
