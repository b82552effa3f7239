"""Model families. Importing a family registers its models with timm."""

from .family import Family, family_of, is_plasm_model, recipe
from .plasm import PLASM
from .pretraining import MaskedAutoencoder
from .video_model import VideoModel

__all__ = ["PLASM", "Family", "MaskedAutoencoder", "VideoModel", "family_of", "is_plasm_model", "recipe"]
