"""Models out of Python: ONNX and torch's own formats, and the engines that run such files.

``export`` writes a file, and keeps it only if it computes what the model computes; ``load_exported`` runs one.
"""

from .checking import TOLERANCE, ExportError, check_file, sample_clips
from .engines import Engine, ExportedModel, is_exported, load_exported
from .files import FORMATS, OPSET, Exported, Format, export, through_onnx
from .float16 import make_room
from .metadata import METADATA, read_metadata
from .origin import UntrustedFileError, check_origin, record_file, remember

__all__ = [
    "FORMATS",
    "METADATA",
    "OPSET",
    "TOLERANCE",
    "Engine",
    "ExportError",
    "Exported",
    "ExportedModel",
    "Format",
    "UntrustedFileError",
    "check_file",
    "check_origin",
    "export",
    "is_exported",
    "load_exported",
    "make_room",
    "read_metadata",
    "record_file",
    "remember",
    "sample_clips",
    "through_onnx",
]
