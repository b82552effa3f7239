"""Model families, a file each, and the functions that make them: ``create_model``, ``list_models``, ``load_model``.

A file whose name begins with an underscore is machinery. Every other one is a family: importing it registers its models
with timm, and it is imported here, with no list of families; its classes are names of this package, too.
"""

import importlib
import pkgutil

from plasm.tasks import frame_counts
from plasm.weights import ModelInterface

from . import openstl
from ._adapters import adapt_in_channels, adapt_in_frames, adapt_out_channels, adapt_out_frames
from ._base import VideoModel
from ._builder import check_buildable, create_model
from ._conversion import Converted, convert_checkpoint
from ._family import Constructor, Family
from ._forecasting import forecasting, forecasts
from ._loading import (
    add_file_format,
    initial_arguments,
    is_here,
    is_pretraining,
    is_public,
    load_initial_weights,
    load_model,
    public_name,
)
from ._masked_autoencoder import MaskedAutoencoder
from ._registry import (
    arguments_of,
    create_task,
    families,
    family_of,
    is_plasm_model,
    is_timm_model,
    list_models,
    recipe,
)
from ._summary import ModelSummary, summarize

# For type checkers, which do not see what the loop below adds.
from .convlstm import ConvLSTM
from .crevnet import CrevNet
from .e3dlstm import E3DLSTM
from .mau import MAU
from .mim import MIM
from .phydnet import PhyDNet
from .plasm import PLASM
from .plasm_radar import PLASMRadar
from .predformer import PredFormer
from .predrnn import PredRNN, PredRNNv2
from .predrnnpp import PredRNNpp
from .simvp import SimVP
from .stam import STAM
from .tau import TAU

__all__ = [
    "E3DLSTM",
    "MAU",
    "MIM",
    "PLASM",
    "STAM",
    "TAU",
    "Constructor",
    "ConvLSTM",
    "Converted",
    "CrevNet",
    "Family",
    "MaskedAutoencoder",
    "ModelInterface",
    "ModelSummary",
    "PLASMRadar",
    "PhyDNet",
    "PredFormer",
    "PredRNN",
    "PredRNNpp",
    "PredRNNv2",
    "SimVP",
    "VideoModel",
    "adapt_in_channels",
    "adapt_in_frames",
    "adapt_out_channels",
    "adapt_out_frames",
    "add_file_format",
    "arguments_of",
    "check_buildable",
    "convert_checkpoint",
    "create_model",
    "create_task",
    "families",
    "family_of",
    "forecasting",
    "forecasts",
    "frame_counts",
    "initial_arguments",
    "is_here",
    "is_plasm_model",
    "is_pretraining",
    "is_public",
    "is_timm_model",
    "list_models",
    "load_initial_weights",
    "load_model",
    "openstl",
    "public_name",
    "recipe",
    "summarize",
]

for _file in pkgutil.iter_modules(__path__):
    if not _file.name.startswith("_"):
        importlib.import_module(f"{__name__}.{_file.name}")
for _found in families():
    globals().update({each.model_cls.__name__: each.model_cls for each in _found.constructors.values()})
