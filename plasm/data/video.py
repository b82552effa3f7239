"""Videos: any frame by its number, without decoding what comes before its keyframe.

Frame n is what a player shows as its n-th frame, and what one decode from the start gives as its n-th. Containers do
not tell numbers, and some tell no true times either. So a number is never guessed: packets are recognised, each frame
carries the position of its packet through the decoder, and frames must leave the decoder in the order that the index
says. Where they do not, the file is decoded from the start, once, and the order remembered.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from plasm.files import require

from .decoding import display_matrix, open_video, to_array
from .frames import FrameFormat
from .image_files import upright
from .streams import FrameStream, check_alike, join_blocks

# Their frames build on the ones before, whatever the container says of keyframes.
_NEVER_SEEK = {"gif", "apng"}
# Shorter packets of MPEG-4 may say "as before" and give no frame.
_SHORTEST_MPEG4 = 20
_UNKNOWN = np.iinfo(np.int64).min

Result = TypeVar("Result")


class _UnprovedError(Exception):
    """Frames leave the decoder in another order than the index says."""


@dataclass(frozen=True)
class _Index:
    """The packets of a video, in the order of the file, and the frames in them.

    Attributes:
        marks: (packets, 4), by which a packet is recognised after a seek: its time of display, position in the file,
            size, and time of decoding.
        keys: Packets at which decoding can begin.
        order: (packets,), grows with the time of display.
        packets: (frames,), the packet of each frame as they are shown.
        decoded: The order is known from decoding, not from the container.
    """

    marks: np.ndarray
    keys: np.ndarray
    order: np.ndarray
    packets: np.ndarray
    decoded: bool

    def keyframe(self, frame: int) -> int:
        """The last packet from which on this frame can be decoded; 0 if it is the first or there is none."""
        packet = self.packets[frame]
        fitting = self.keys[(self.keys <= packet) & (self.order[self.keys] <= self.order[packet])]
        return int(fitting[-1]) if len(fitting) else 0

    def first_frame(self, key: int) -> int:
        """The first frame that is right if decoding begins at this keyframe."""
        return int(np.searchsorted(self.order[self.packets], self.order[key]))


class VideoStream(FrameStream):
    """A video, or anything else that PyAV decodes, upright as its display matrix says.

    Frame n is what a player shows as its n-th frame: packets before a cut that the container marks to be discarded
    count as little as invisible frames. The file is indexed once without decoding, and read from the last keyframe
    before the first frame that is wanted. Where the index cannot prove the numbers (B-frames in AVI, raw streams), the
    file is decoded once instead.

    Raises:
        ValueError: If it holds no frames, or its first or last cannot be decoded or differ in size; and as
            ``open_video``.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.name = file, str(file)
        self._seekable = True
        if not file.stat().st_size:
            raise ValueError(f"{file} is empty")
        with file.open("rb") as handle, open_video(handle, self.name) as (container, stream):
            self.rate: Fraction | None = stream.average_rate
            index = _index_packets(container, stream, self.name)
        self._use(index or self._index_frames())
        try:
            self._probe()
        except _EndedEarlyError:
            # Decoding has shown that there are fewer frames than packets.
            self._probe()

    def _use(self, index: _Index) -> None:
        self._index, self.num_frames = index, len(index.packets)

    def read(self, start: int, count: int, step: int = 1, gray: bool = False) -> np.ndarray:
        """Read frames; see ``FrameStream``. A damaged one, or one built on damage, is an error that names it."""
        self._check_read(count)
        return self._proved(range(start, start + count * step, step), gray, lambda frames: np.stack(list(frames)))

    def read_as(self, frame_format: FrameFormat, start: int, count: int, step: int = 1) -> Tensor:
        """Read frames as a model takes them; see ``FrameStream``."""
        self._check_size(frame_format, count)

        def convert(frames: Iterator[np.ndarray]) -> Tensor:
            blocks = iter(lambda: list(islice(frames, self._several())), [])
            return join_blocks((frame_format(np.stack(block), self.name) for block in blocks), count)

        return self._proved(range(start, start + count * step, step), frame_format.channels == 1, convert)

    def _proved(self, wanted: range, gray: bool, use: Callable[[Iterator[np.ndarray]], Result]) -> Result:
        """What becomes of frames that are proved to be those wanted."""
        if wanted[-1] >= self.num_frames:
            raise _EndedEarlyError(f"{self.file} ends before frame {wanted[-1] + 1}: it has {self.num_frames}")
        sought = self._index.keyframe(wanted[0]) if self._seekable else 0
        damaged = False
        for key in (sought, 0) if sought else (0,):
            try:
                result = use(self._frames(wanted, gray, key))
            except _UnprovedError:
                if not self._index.decoded:
                    self._use(self._index_frames())
                    return self._proved(wanted, gray, use)
            except _DamagedError:
                # What the decoder must know may stand at the start alone.
                if not key:
                    raise
                damaged = True
            else:
                self._seekable &= not damaged
                return result
        raise ValueError(f"{self.file} cannot be decoded: its frames come in another order each time")

    def _frames(self, wanted: range, gray: bool, key: int) -> Iterator[np.ndarray]:
        count = 0
        first: np.ndarray | None = None
        rotation: int | None = None
        matrix: tuple[float, float, float, float] | None = None
        with (
            self.file.open("rb") as handle,
            open_video(handle, self.name) as (container, stream),
            closing(self._decode(container, stream, key)) as decoded,
        ):
            for number, frame, damaged in decoded:
                expected = wanted[count]
                if number < expected:
                    continue
                if number > expected or damaged is not None:
                    raise self._damaged(expected, expected if number > expected else damaged)
                if frame.rotation != rotation:
                    # Looked up when it changes: that costs as much as decoding a small frame.
                    rotation, matrix = frame.rotation, display_matrix(frame, stream.codec_context.name)
                pixels = upright(to_array(frame, gray), matrix)
                first = pixels if first is None else first
                check_alike(first, pixels, f"frame {number + 1} of {self.file}", f"frame {wanted[0] + 1}")
                yield pixels
                count += 1
                if count == len(wanted):
                    return
        if key or not self._index.decoded:
            raise _UnprovedError
        raise _EndedEarlyError(f"{self.file} ends before frame {wanted[-1] + 1} of {self.num_frames}")

    def _damaged(self, number: int, since: int | None) -> "_DamagedError":
        built = "" if since in (None, number) else f", on which frame {number + 1} is built"
        return _DamagedError(f"{self.file} is damaged at frame {(number if since is None else since) + 1}{built}")

    def _decode(self, container: Any, stream: Any, key: int) -> Generator[tuple[int, Any, int | None], None, None]:
        """Decode from a keyframe on: number, frame, and the damaged frame that it is or is built on, if any.

        An ``_UnprovedError`` if frames come in another order than the index says, a ValueError if the end comes amid
        damage.
        """
        index, codec = self._index, stream.codec_context
        numbers = np.full(len(index.marks) + 1, -1)  # the last for frames of no known packet
        numbers[index.packets] = np.arange(len(index.packets))
        first = index.first_frame(key) if key else 0
        expected, damaged, broken = first, None, set()
        in_order = not index.decoded and codec.codec.reorder and not codec.has_b_frames
        source = _seek(container, stream, index, key) if key else _packets(container, stream)
        for packet, frames in _decoded(codec, source):
            if frames is None:
                lost = int(numbers[_position(packet)])
                if lost >= first:
                    broken.add(lost)
                elif damaged is None and lost < 0 < expected:
                    damaged = expected
                continue
            for frame in frames:
                # A decoder that does not hand positions through is used from the start alone.
                number = expected if not len(index.keys) else int(numbers[_position(frame)])
                if number < first:
                    continue
                while expected in broken and expected != number:
                    damaged, expected = expected if damaged is None else damaged, expected + 1
                if number != expected or (in_order and codec.has_b_frames):
                    raise _UnprovedError
                if frame.key_frame:
                    damaged = None
                if frame.is_corrupt and damaged is None:
                    damaged = number
                yield number, frame, damaged
                expected += 1
        if broken or damaged is not None:
            raise self._damaged(expected, damaged)

    def _index_frames(self) -> _Index:
        """Decode all, once, to learn which packets give frames, and in which order these are shown."""
        rows: list[tuple[int, int, int, int]] = []
        packets: list[int] = []
        decodable: set[int] = set()
        keys: list[int] = []
        with self.file.open("rb") as handle, open_video(handle, self.name) as (container, stream):
            seekable = stream.codec_context.name not in _NEVER_SEEK
            for packet, frames in _decoded(stream.codec_context, _packets(container, stream)):
                packets += [_position(frame) for frame in frames or ()]
                decodable |= {_position(frame) for frame in frames or () if frame.key_frame}
                if packet is not None:
                    keys += [len(rows)] if packet.is_keyframe else []
                    rows.append(_mark(packet))
        if not packets:
            raise ValueError(f"{self.file} holds no frames that can be decoded")
        if -1 in packets or len(set(packets)) < len(packets):
            seekable, packets = False, list(range(len(packets)))
            rows += [(_UNKNOWN,) * 4] * (len(packets) - len(rows))
        marks, shown = np.array(rows, dtype=np.int64), np.array(packets, dtype=np.int64)
        order = np.full(len(marks), -1)
        order[shown] = np.arange(len(shown))
        usable = [key for key in keys if seekable and key in decodable]
        return _Index(marks, np.array(usable, dtype=np.int64), order, shown, decoded=True)


class _EndedEarlyError(ValueError):
    """A video has fewer frames than its index says."""


class _DamagedError(ValueError):
    """A frame is damaged, or is built on one that is."""


def _mark(packet: Any) -> tuple[int, int, int, int]:
    values = packet.pts, packet.pos, packet.size, packet.dts
    known = [_UNKNOWN if value is None else int(value) for value in values]
    return known[0], known[1], known[2], known[3]


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """The packets from the start, each with its position among them."""
    number = 0
    for packet in container.demux(stream):
        if packet.size:
            packet.opaque = [number]
            number += 1
            yield packet


def _position(item: Any) -> int:
    """The position among the packets of a packet, or of that of a frame; -1 if the decoder does not hand it through."""
    # In a list of its own: PyAV keeps what is handed through by its identity, which equal numbers share.
    return -1 if item.opaque is None else int(item.opaque[0])


def _seek(container: Any, stream: Any, index: _Index, key: int) -> Iterator[Any]:
    """The packets from a keyframe on, each with its position in the file.

    An ``_UnprovedError`` if the keyframe cannot be found, or others follow it than the index says.
    """
    av = require("av")
    wanted = index.marks[key].tolist()
    before = index.keys[index.keys < key]
    # Containers search by either time, and some land too late.
    times = [int(time) for time in (wanted[0], *index.marks[[key, *before[:-5:-1]], -1]) if time != _UNKNOWN]
    for time in times:
        try:
            container.seek(time, stream=stream)
        except av.FFmpegError:
            continue
        number = None
        for packet in container.demux(stream):
            if not packet.size:
                continue
            mark = _mark(packet)
            if number is None:
                if mark[-1] > wanted[-1]:
                    break
                if list(mark[:-1]) != wanted[:-1]:
                    continue
                number = key
            # Some times of decoding are made up from the packets before, which are other ones after a seek.
            if number >= len(index.marks) or list(mark[:-1]) != index.marks[number, :-1].tolist():
                raise _UnprovedError
            packet.opaque = [number]
            number += 1
            yield packet
        if number is not None:
            return
    raise _UnprovedError


def _decoded(codec: Any, packets: Iterator[Any]) -> Iterator[tuple[Any, list[Any] | None]]:
    """Packets and the frames that they bring out of the decoder, None if they are damaged; at the end the last ones."""
    av = require("av")
    codec.copy_opaque = True
    for packet in packets:
        try:
            frames = codec.decode(packet)
        except av.FFmpegError:
            frames = None
        yield packet, frames
    yield None, codec.decode(None)


def _index_packets(container: Any, stream: Any, name: str) -> _Index | None:
    """Index a video without decoding it; None if that does not prove which frame is which."""
    codec = stream.codec_context
    rows: list[tuple[int, int, int, int]] = []
    keys: list[int] = []
    shown: list[int] = []
    for packet in _packets(container, stream):
        rows.append(_mark(packet))
        if packet.is_keyframe:
            keys.append(len(rows) - 1)
        # The fifth bit of VP8 says whether a frame is shown.
        if not packet.is_discard and (codec.name != "vp8" or memoryview(packet)[0] & 0x10):
            shown.append(len(rows) - 1)
    if not shown:
        raise ValueError(f"{name} holds no frames")
    marks, packets = np.array(rows, dtype=np.int64), np.array(shown, dtype=np.int64)
    times = marks[packets, 0]
    if codec.name in _NEVER_SEEK:
        keys = []
    elif not keys or keys[0] or (codec.name == "mpeg4" and marks[:, 2].min() < _SHORTEST_MPEG4):
        return None
    order = np.arange(len(marks))
    if codec.codec.reorder:
        known = (times != _UNKNOWN).all() and len(np.unique(times)) == len(times)
        rising = known and (np.diff(times) > 0).all()
        # Where frames are not shown in the order of the file, times that grow with it are not those of display.
        if not known or bool(codec.has_b_frames) == rising:
            return None
        if codec.has_b_frames:
            order = marks[:, 0]
            packets = packets[np.argsort(times)]
    return _Index(marks, np.array(keys, dtype=np.int64), order, packets, decoded=False)
