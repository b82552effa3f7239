"""Images that hold several frames in one file, which FFmpeg does not read: pages of TIFF, frames of WebP."""

from pathlib import Path
from typing import Any

import numpy as np

from .decoding import check_frame
from .extras import require
from .reading import reading
from .streams import FrameStream, check_alike

__all__ = ["PageStream"]

# What Pillow's modes become; others, palettes among them, become colour.
_MODES = {"1": "L", "L": "L", "LA": "RGBA", "PA": "RGBA", "RGBA": "RGBA", "F": "F"}


class PageStream(FrameStream):
    """A TIFF of several pages, or an animated WebP, read by Pillow.

    Args:
        file: The file.

    Raises:
        ValueError: If it cannot be read, or its first and last page differ.
        ImportError: If Pillow is not installed.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.name = file, str(file)
        self.num_frames = int(self._open(lambda image: image.n_frames))
        self._probe()

    def read(self, start: int, count: int, step: int = 1, gray: bool = False) -> np.ndarray:
        """Read frames; see ``FrameStream``."""
        self._check_read(count)
        pages: list[np.ndarray] = []

        def read(image: Any) -> None:
            for number in range(start, start + count * step, step):
                image.seek(number)
                pages.append(_pixels(image))
                check_alike(pages[0], pages[-1], f"{self.file}, page {number + 1}", f"page {start + 1}")

        self._open(read)
        return np.stack(pages)

    def _open(self, use: Any) -> Any:
        pillow = require("PIL.Image")
        with reading(self.file, "an image of several frames that Pillow can read"), pillow.open(self.file) as image:
            check_frame(image.height, image.width, self.name)
            return use(image)


def _pixels(image: Any) -> np.ndarray:
    """The page that an image of Pillow's is at: (H, W, K)."""
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)
    else:
        alpha = image.mode == "P" and "transparency" in image.info
        pixels = np.asarray(image.convert("RGBA" if alpha else _MODES.get(image.mode, "RGB")))
    return pixels.reshape(*pixels.shape[:2], -1)
