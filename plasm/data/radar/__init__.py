"""Weather radar: composites as services publish them, as rain rates on one grid, and as clips to train on."""

from .clips import RadarClips, radar
from .formats import open_frames
from .frames import Frame, ReadOptions
from .grid import Grid
from .sequence import Sequence, open_sequence
from .values import CAP, FLOOR, denormalize, normalize, rain_rate

__all__ = [
    "CAP",
    "FLOOR",
    "Frame",
    "Grid",
    "RadarClips",
    "ReadOptions",
    "Sequence",
    "denormalize",
    "normalize",
    "open_frames",
    "open_sequence",
    "radar",
    "rain_rate",
]
