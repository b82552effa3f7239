"""Norpix .seq files, in which Caltech Pedestrian comes: JPEG images after a header of 1024 bytes.

Layout, little endian: 0xFEED (uint32), "Norpix seq" in UTF-16, version (int32, at 28); width, height, bits, real bits,
image bytes and image format (uint32 each, at 548), frames (uint32, at 572), frames a second (float64, at 584). From
byte 1024 on each frame is its length (uint32, which counts itself), a JPEG, and 8 or 16 bytes with the time.
"""

import struct
from fractions import Fraction
from io import BufferedReader, BytesIO
from pathlib import Path

import numpy as np

from .decoding import decode_image
from .streams import FrameStream, check_alike

_MAGIC = 0xFEED
_HEADER_BYTES = 1024
_JPEG_FORMATS = (102, 201)
_JPEG_START = b"\xff\xd8"


class SeqStream(FrameStream):
    """A .seq file of JPEG images, indexed once; a ValueError if it is none, has no frames, or ends within one."""

    _frames_apart = True

    def __init__(self, file: Path) -> None:
        self.file, self.name = file, str(file)
        with file.open("rb") as handle:
            header = handle.read(_HEADER_BYTES)
            if len(header) < _HEADER_BYTES or struct.unpack_from("<I", header)[0] != _MAGIC:
                raise ValueError(f"{file} is not a .seq file")
            image_format, frames = struct.unpack_from("<2I", header, 568)
            if image_format not in _JPEG_FORMATS:
                raise ValueError(f"{file} holds images of format {image_format}, only JPEG (102, 201) is read")
            rate = struct.unpack_from("<d", header, 584)[0]
            self.rate = Fraction(rate).limit_denominator(1001) if 0 < rate < 1e6 else None
            self._positions = np.array(self._index(handle, file.stat().st_size), dtype=np.int64)
        # Recorders that were cut off leave the number at 0.
        if frames > len(self._positions):
            raise ValueError(f"{file} ends after {len(self._positions)} of {frames} frames")
        self.num_frames = len(self._positions)
        if not self.num_frames:
            raise ValueError(f"{file} holds no frames")
        self._probe()

    @staticmethod
    def _index(handle: BufferedReader, end: int) -> list[tuple[int, int]]:
        """(position, length) of each JPEG."""
        positions: list[tuple[int, int]] = []
        position, gap = _HEADER_BYTES, None
        while position + 6 <= end:
            handle.seek(position)
            length, start = struct.unpack("<I2s", handle.read(6))
            if start != _JPEG_START or length < 6 or position + length > end:
                break
            positions.append((position + 4, length - 4))
            position += length
            if gap is None:
                # What follows an image is as long after every one.
                handle.seek(position)
                gap = 16 if handle.read(22)[20:] == _JPEG_START else 8
            position += gap
        return positions

    def read(self, start: int, count: int, step: int = 1, gray: bool = False) -> np.ndarray:
        """Read frames; see ``FrameStream``."""
        self._check_read(count)
        frames: list[np.ndarray] = []
        with self.file.open("rb") as handle:
            for number in range(start, start + count * step, step):
                position, length = self._positions[number].tolist()
                handle.seek(position)
                frames.append(decode_image(BytesIO(handle.read(length)), f"{self.file}, frame {number + 1}", gray))
                check_alike(frames[0], frames[-1], f"frame {number + 1} of {self.file}", f"frame {start + 1}")
        return np.stack(frames)
