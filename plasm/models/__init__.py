"""Model families. Importing a family registers its models with timm."""

from .family import Family, family_of, is_plasm_model, recipe
from .plasm import PLASM
from .pretraining import MaskedAutoencoder
from .simvp import SimVP
from .tau import TAU
from .video_model import VideoModel

__all__ = [
    "PLASM",
    "TAU",
    "Family",
    "MaskedAutoencoder",
    "SimVP",
    "VideoModel",
    "family_of",
    "is_plasm_model",
    "recipe",
]
