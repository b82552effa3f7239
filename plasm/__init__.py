"""plasm: video prediction models for PyTorch."""

__version__ = "0.1.0"
