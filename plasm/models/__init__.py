"""Model families. Importing a family registers its models with timm."""

from .plasm import PLASM
from .pretraining import MaskedAutoencoder

__all__ = ["PLASM", "MaskedAutoencoder"]
