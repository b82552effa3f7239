"""Layers that stand on their own: take one, leave the rest.

Each takes ``device`` and ``dtype`` of its parameters by name, as torch's layers do: ``**dd``.
"""

from .causal_lstm import CausalLSTMCell, GradientHighwayUnit
from .conv import ConvBlock, UpsampleBlock
from .conv_mixer import ConvMixerBlock
from .convlstm import ConvLSTMCell
from .convnext import ConvNeXtBlock
from .eidetic_lstm import Eidetic3DLSTMCell
from .gated_aggregation import ChannelAggregation, MultiOrderGatedAggregation
from .gated_attention import GatedSpatiotemporalAttention
from .gated_transformer import GatedTransformerBlock
from .inception import InceptionBlock
from .large_kernel_attention import LargeKernelAttention
from .local_attention import LocalLayerAttention
from .mau_cell import MAUCell
from .metaformer import DepthwiseMlp, MetaFormerBlock
from .mim import MIMBlock, MIMMemory
from .optical_flow import OpticalFlow
from .pairwise_attention import PairwiseLayerAttention
from .phycell import PhyCell
from .pixel_mask import pixel_mask_from_keys, random_pixel_mask
from .recursive_gated_conv import RecursiveGatedConv
from .reversible_predictive import ReversiblePredictiveModule
from .sparse import SparseConv2d, SparseEncoder, SparseGroupNorm, SparseTensor
from .spatial_masking import SpatialMasking
from .st_lstm import SpatioTemporalLSTMCell
from .stam_cell import STAMCell
from .temporal_attention import TemporalAttention
from .token_blocks import MLPMixerBlock, SwinBlock, ViTBlock
from .two_way_autoencoder import CouplingBlock, TwoWayAutoencoder
from .uniformer import UniFormerBlock

__all__ = [
    "CausalLSTMCell",
    "ChannelAggregation",
    "ConvBlock",
    "ConvLSTMCell",
    "ConvMixerBlock",
    "ConvNeXtBlock",
    "CouplingBlock",
    "DepthwiseMlp",
    "Eidetic3DLSTMCell",
    "GatedSpatiotemporalAttention",
    "GatedTransformerBlock",
    "GradientHighwayUnit",
    "InceptionBlock",
    "LargeKernelAttention",
    "LocalLayerAttention",
    "MAUCell",
    "MIMBlock",
    "MIMMemory",
    "MLPMixerBlock",
    "MetaFormerBlock",
    "MultiOrderGatedAggregation",
    "OpticalFlow",
    "PairwiseLayerAttention",
    "PhyCell",
    "RecursiveGatedConv",
    "ReversiblePredictiveModule",
    "STAMCell",
    "SparseConv2d",
    "SparseEncoder",
    "SparseGroupNorm",
    "SparseTensor",
    "SpatialMasking",
    "SpatioTemporalLSTMCell",
    "SwinBlock",
    "TemporalAttention",
    "TwoWayAutoencoder",
    "UniFormerBlock",
    "UpsampleBlock",
    "ViTBlock",
    "pixel_mask_from_keys",
    "random_pixel_mask",
]
