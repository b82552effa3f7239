"""Images that hold several frames in one file: pages of TIFF, read by tifffile, and frames of WebP, by Pillow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from plasm.files import require

from .decoding import check_frame
from .frames import FrameFormat
from .layouts import NO_OPTIONS, ArrayOptions
from .reading import reading
from .streams import ClipStream, FrameStream, check_alike, clips_of, join_blocks
from .tiff import TIFF, TiffStack, open_tiff

# What Pillow's modes become; others, palettes among them, become colour.
_MODES = {"1": "L", "L": "L", "LA": "RGBA", "PA": "RGBA", "RGBA": "RGBA", "F": "F"}


class PageStream(FrameStream):
    """An animated WebP, read by Pillow; see ``FrameStream``."""

    def __init__(self, file: Path) -> None:
        self.file, self.name = file, str(file)
        self.num_frames = int(self._open(lambda image: image.n_frames))
        self._probe()

    def read(self, start: int, count: int, step: int = 1, gray: bool = False) -> np.ndarray:
        """Read frames; see ``FrameStream``."""
        self._check_read(count)
        return self._open(lambda image: np.stack(list(self._pages(image, range(start, start + count * step, step)))))

    def read_as(self, frame_format: FrameFormat, start: int, count: int, step: int = 1) -> Tensor:
        """Read frames as a model takes them, in one go: each is painted on those before it; see ``FrameStream``."""
        self._check_size(frame_format, count)
        numbers = range(start, start + count * step, step)
        return self._open(
            lambda image: join_blocks(
                (frame_format(page[None], self.name) for page in self._pages(image, numbers)), count
            )
        )

    def _pages(self, image: Any, numbers: range) -> Iterator[np.ndarray]:
        first: np.ndarray | None = None
        for number in numbers:
            image.seek(number)
            alpha = image.mode == "P" and "transparency" in image.info
            pixels = np.asarray(image.convert("RGBA" if alpha else _MODES.get(image.mode, "RGB")))
            page = pixels.reshape(*pixels.shape[:2], -1)
            first = page if first is None else first
            check_alike(first, page, f"{self.file}, page {number + 1}", f"page {numbers[0] + 1}")
            yield page

    def _open(self, use: Any) -> Any:
        pillow = require("PIL.Image")
        with reading(self.file, "an image of several frames that Pillow can read"), pillow.open(self.file) as image:
            check_frame(image.height, image.width, self.name)
            return use(image)


class TiffStream(ClipStream):
    """The frames of a TIFF file, or of one clip in it; see ``ClipStream`` and ``read_tiff``."""

    _frames_apart = True

    def __init__(self, file: Path, stack: TiffStack, clip: int, channels: int, fill: float | None) -> None:
        self.stack, self.wanted = stack, channels
        super().__init__(file, None, stack.layout, stack.shape, clip, fill)
        stack.check(1, self.name)
        # What a palette, an alpha channel or an orientation makes of it, only a frame tells.
        self._probe()

    def _read(self, rows: slice, count: int) -> np.ndarray:
        self.stack.check(count, self.name)
        numbers = range(rows.start, rows.stop, rows.step)
        with reading(self.file, TIFF), self.file.open("rb") as content, open_tiff(content, str(self.file)) as file:
            return np.stack(
                [self.stack.frame(file, each, self.clip, self.wanted, self.fill, self.name) for each in numbers]
            )


def tiff_streams(file: Path, channels: int, options: ArrayOptions = NO_OPTIONS) -> list[TiffStream]:
    """The clips of a TIFF file; see ``open_source``. C tells what a fourth sample is."""
    with reading(file, TIFF), file.open("rb") as content, open_tiff(content, str(file)) as opened:
        stack = TiffStack.of(opened, str(file), options.axes)
    clips = clips_of(stack.layout, stack.shape, str(file))
    return [TiffStream(file, stack, clip, channels, options.fill) for clip in clips]
