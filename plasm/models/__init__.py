"""Model families, a file each. Importing a family registers its models with timm; every file here is imported."""

import importlib
import pkgutil

from .convlstm import ConvLSTM
from .crevnet import CrevNet
from .e3dlstm import E3DLSTM
from .family import Family, arguments_of, family_of, is_plasm_model, is_timm_model, make_task, recipe
from .mau import MAU
from .mim import MIM
from .phydnet import PhyDNet
from .plasm import PLASM
from .predformer import PredFormer
from .predrnn import PredRNN, PredRNNv2
from .predrnnpp import PredRNNpp
from .pretraining import MaskedAutoencoder
from .simvp import SimVP
from .stam import STAM
from .tau import TAU
from .video_model import VideoModel

__all__ = [
    "E3DLSTM",
    "MAU",
    "MIM",
    "PLASM",
    "STAM",
    "TAU",
    "ConvLSTM",
    "CrevNet",
    "Family",
    "MaskedAutoencoder",
    "PhyDNet",
    "PredFormer",
    "PredRNN",
    "PredRNNpp",
    "PredRNNv2",
    "SimVP",
    "VideoModel",
    "arguments_of",
    "family_of",
    "is_plasm_model",
    "is_timm_model",
    "make_task",
    "recipe",
]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
