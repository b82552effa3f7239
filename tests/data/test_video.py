import hashlib
import pickle
import random
import shutil
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from video_files import frames, levels, noise, set_matrix, write_packets, write_video

from plasm.data import FrameFormat
from plasm.data.limits import FileTooLargeError
from plasm.data.sources import open_source
from plasm.data.video import VideoStream

CASES = Path(__file__).parent / "cases"
B_FRAMES, NO_B_FRAMES, OPEN_GOP = {"bf": "3"}, {"bf": "0"}, {"bf": "3", "x264-params": "open-gop=1:scenecut=0"}
X265 = {"x265-params": "log-level=0:keyint=12:open-gop=1:bframes=3:pools=1"}
FAST_VP9 = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
ALT_REF = {"deadline": "good", "cpu-used": "5", "lag-in-frames": "16", "auto-alt-ref": "1"}
VARIABLE = np.cumsum(np.random.default_rng(0).integers(20, 90, 40)).tolist()

WRITTEN = {
    **{f"b.{ending}": ("libx264", B_FRAMES) for ending in ("mp4", "mov", "mkv", "avi", "ts", "flv", "h264")},
    **{f"plain.{ending}": ("libx264", NO_B_FRAMES) for ending in ("mp4", "mov", "mkv", "avi", "ts", "h264")},
    **{f"open_gop.{ending}": ("libx264", OPEN_GOP) for ending in ("mp4", "mov", "mkv", "avi", "ts")},
    **{f"refresh.{ending}": ("libx264", {"bf": "0", "intra-refresh": "1"}) for ending in ("mp4", "ts")},
    **{f"mpeg4.{ending}": ("mpeg4", {}) for ending in ("mp4", "mov", "mkv", "avi", "ts")},
    **{f"mpeg4_b.{ending}": ("mpeg4", {"bf": "2"}) for ending in ("mp4", "mov", "mkv", "avi", "ts")},
    **{f"mjpeg.{ending}": ("mjpeg", {}) for ending in ("mp4", "mov", "mkv", "avi", "mjpeg")},
    **{f"mpeg2.{ending}": ("mpeg2video", {"bf": "2"}) for ending in ("ts", "mpg")},
    **{f"vp9.{ending}": ("libvpx-vp9", FAST_VP9) for ending in ("webm", "mkv", "mp4")},
    "hidden.webm": ("libvpx", ALT_REF), "hevc.mkv": ("libx265", X265), "wmv2.wmv": ("wmv2", {}),
    "ffv1.mkv": ("ffv1", {}),
}  # fmt: skip
TIMED = {
    **{f"variable_b.{ending}": ("libx264", B_FRAMES) for ending in ("mp4", "mov", "mkv", "ts")},
    "variable.mp4": ("libx264", NO_B_FRAMES), "variable.webm": ("libvpx-vp9", FAST_VP9),
}  # fmt: skip


def played(file: Path, stream: int = 0) -> list[np.ndarray]:
    """One decode from the start to the end."""
    with av.open(str(file)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=stream)]


def check_every_frame(file: Path, film: int = 0) -> None:
    expected = played(file, film)
    stream = pickle.loads(pickle.dumps(VideoStream(file)))  # what workers get
    assert stream.num_frames == len(expected)
    numbers = list(range(len(expected)))
    for number in random.Random(0).sample(numbers, len(numbers)):
        np.testing.assert_array_equal(stream.read(number, 1)[0], expected[number], f"{file.name}, frame {number}")
    for start, step in ((0, 1), (1, 3), (len(expected) // 2, 1), (2, 7)):
        wanted = numbers[start::step]
        np.testing.assert_array_equal(stream.read(start, len(wanted), step), np.stack(expected)[wanted], file.name)


@pytest.mark.parametrize("name", WRITTEN)
def test_frame_n_is_what_plays_as_the_nth(tmp_path: Path, name: str) -> None:
    codec, options = WRITTEN[name]
    pixels = {"mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    file = write_packets(tmp_path / name, noise(40), codec, options, pixels=pixels)
    assert all((one != other).any() for one, other in pairwise(played(file)))
    check_every_frame(file)


@pytest.mark.parametrize("name", TIMED)
def test_frame_n_at_a_variable_rate(tmp_path: Path, name: str) -> None:
    check_every_frame(write_packets(tmp_path / name, noise(40), *TIMED[name], times=VARIABLE))


@pytest.mark.parametrize(
    ("name", "count", "digest"),
    [
        ("b_frames.avi", 75, "05b9254d857f604eb929831b761cef44f7c9ebd0383b0b73ea8560d19671563c"),
        ("edit_list.mp4", 52, "ee103766f2d3603dcecc1bf6d16a445e71e5070550e72f4958f6b2c69f43a593"),
        ("packed_b_frames.avi", 73, None),
    ],
)
def test_frame_n_of_hard_files(name: str, count: int, digest: str | None) -> None:
    check_every_frame(CASES / name)
    content = VideoStream(CASES / name).read(0, count)
    assert digest in (None, hashlib.sha256(content.tobytes()).hexdigest())


def test_times_made_up_from_those_of_decoding(tmp_path: Path) -> None:
    """A stream copy from AVI to MP4 keeps AVI's untrue times, in a container that has true ones otherwise."""
    with av.open(str(CASES / "b_frames.avi")) as source, av.open(str(tmp_path / "a.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    check_every_frame(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.avi", "mpeg4"), ("a.mp4", "mpeg4"), ("a.mkv", "mpeg4"), ("a.ts", "mpeg2video"), ("a.gif", "gif"),
        ("a.mjpeg", "mjpeg"), ("a.mpg", "mpeg2video"),
    ],
)  # fmt: skip
def test_any_frame_of_a_video(tmp_path: Path, name: str, codec: str) -> None:
    (stream,) = open_source(write_video(tmp_path / name, frames(23), codec), 3)
    assert (stream.num_frames, stream.size) == (23, (24, 32))
    for start, count, step in ((0, 23, 1), (7, 3, 1), (1, 4, 5), (22, 1, 1), (4, 2, 9)):
        read = stream.read(start, count, step)
        assert read.dtype == np.uint8
        assert levels(read).tolist() == list(range(start, start + count * step, step))
    assert stream.read(3, 2, gray=True).shape[3] in (1, 3, 4)  # colour stays where gray is not stored apart


@pytest.mark.parametrize("name", ["b.mp4", "b.mkv", "b.ts", "open_gop.mov", "mpeg4.avi", "vp9.webm"])
def test_reading_starts_at_a_keyframe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Else the end of a long video would cost its whole length."""
    stream = VideoStream(write_packets(tmp_path / name, noise(60, 96, 128), *WRITTEN[name]))
    fed: list[object] = []
    decoded = VideoStream._decode
    monkeypatch.setattr(VideoStream, "_decode", lambda *args: (fed.append(item) or item for item in decoded(*args)))
    stream.read(58, 1)
    assert len(fed) <= 20
    assert not stream._index.decoded


def test_what_cannot_be_proved_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[VideoStream] = []
    whole = VideoStream._index_frames
    monkeypatch.setattr(VideoStream, "_index_frames", lambda self: runs.append(self) or whole(self))
    stream = VideoStream(CASES / "b_frames.avi")
    for number in (70, 3, 55):
        stream.read(number, 2)
    assert len(runs) == 1
    VideoStream(CASES / "edit_list.mp4").read(40, 1)
    assert len(runs) == 1


@pytest.mark.parametrize("name", ["mpeg4.avi", "mpeg4.mp4", "mpeg2.ts"])
def test_damage_is_found_where_it_is_and_up_to_the_next_keyframe(tmp_path: Path, name: str) -> None:
    file = write_packets(tmp_path / name, noise(36, 96, 128), WRITTEN[name][0])
    with av.open(str(file)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    expected, content = played(file), bytearray(file.read_bytes())
    place, size = packets[12]  # a keyframe
    content[place + 190 : place + 190 + min(size // 3, 100)] = bytes(min(size // 3, 100))
    file.write_bytes(content)
    stream = VideoStream(file)
    np.testing.assert_array_equal(stream.read(0, 12), np.stack(expected[:12]))
    np.testing.assert_array_equal(stream.read(24, 12), np.stack(expected[24:]))
    for start, count in ((12, 1), (0, 20), (6, 30)):
        with pytest.raises(ValueError, match=rf"{file.name} is damaged at frame 13$"):
            stream.read(start, count)
    with pytest.raises(ValueError, match=r"is damaged at frame 13, on which frame 19 is built"):
        stream.read(18, 1)


@pytest.mark.parametrize("name", ["b.mkv", "plain.mp4", "vp9.webm", "mpeg2.mpg"])
def test_a_pause_is_no_damage(tmp_path: Path, name: str) -> None:
    """Recorders leave out frames that repeat the last one, and clips are joined with time between them."""
    codec, options = ("mpeg1video", {"bf": "2"}) if name == "mpeg2.mpg" else WRITTEN[name]
    times = None if name == "mpeg2.mpg" else [40 * number + 460 * (number > 17) for number in range(40)]
    check_every_frame(write_packets(tmp_path / name, noise(40), codec, options, times=times))


@pytest.mark.parametrize("name", ["a.gif", "a.png"])
def test_frames_that_are_shown_for_long_are_no_damage(tmp_path: Path, name: str) -> None:
    images = [Image.fromarray(page) for page in noise(20)]
    images[0].save(tmp_path / name, save_all=True, append_images=images[1:], duration=[500] + 18 * [100] + [900])
    (stream,) = open_source(tmp_path / name, 3)
    assert stream.num_frames == 20
    assert len(stream.read(0, 20)) == 20


def test_the_cut_end_of_a_stream_copy_is_no_damage(tmp_path: Path) -> None:
    file = write_packets(tmp_path / "a.mkv", noise(60), "libx264", {**B_FRAMES, "b-adapt": "0"}, without=range(58, 60))
    assert VideoStream(file).read(0, 58).shape[0] == 58
    check_every_frame(file)


def test_what_a_seek_shows_as_damage_is_decoded_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """H.264 of old encoders says at its start alone how it is to be read."""
    file = write_packets(tmp_path / "a.mp4", noise(40), *WRITTEN["plain.mp4"])
    expected, stream, keys = played(file), VideoStream(file), []
    decode = VideoStream._decode

    def decode_without_the_start(self: VideoStream, container: Any, source: Any, key: int) -> Iterator[Any]:
        keys.append(key)
        return (
            (number, frame, number if key else since) for number, frame, since in decode(self, container, source, key)
        )

    monkeypatch.setattr(VideoStream, "_decode", decode_without_the_start)
    for number in (20, 3, 39):
        np.testing.assert_array_equal(stream.read(number, 1)[0], expected[number])
    assert keys[0] > 0 == sum(keys[1:])  # a seek is tried once


def test_a_cover_picture_is_no_film(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    shutil.copy(CASES / "cover_first.mp4", file)
    (stream,) = open_source(file, 3)
    assert (stream.num_frames, stream.size) == (20, (96, 128))
    check_every_frame(file, film=1)


def test_frames_are_made_small_one_by_one(tmp_path: Path) -> None:
    """A clip of small frames takes no more memory than a few of the large ones that it is made of."""
    file = write_video(tmp_path / "a.avi", frames(30, 480, 640))
    stream, small = VideoStream(file), FrameFormat(3, (24, 32))
    expected = small(stream.read(0, 30), "all at once")
    torch.testing.assert_close(stream.read_as(small, 0, 30), expected, rtol=0, atol=0)
    tracemalloc.start()
    stream.read_as(small, 0, 30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * 480 * 640 * 3  # as floats, all of them take four times as much
    with pytest.raises(FileTooLargeError, match=r"a\.avi: 12 frames of 90000x90000 would take"):
        stream.read_as(FrameFormat(3, (90_000, 90_000)), 0, 12)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1), (1, 0, 0, -1)])
def test_pictures_are_upright(tmp_path: Path, name: str, matrix: tuple[int, ...]) -> None:
    file = write_packets(tmp_path / name, noise(4), "libx264")
    plain = VideoStream(file).read(0, 4)
    set_matrix(file, matrix)
    turned = VideoStream(file).read(0, 4)
    # Pixel by pixel, as the matrix says: x' = ax + cy, y' = bx + dy.
    a, b, c, d = matrix
    y, x = np.mgrid[: plain.shape[1], : plain.shape[2]]
    new_x, new_y = a * x + c * y, b * x + d * y
    expected = np.zeros((4, np.ptp(new_y) + 1, np.ptp(new_x) + 1, 3), np.uint8)
    expected[:, new_y - new_y.min(), new_x - new_x.min()] = plain
    np.testing.assert_array_equal(turned, expected)


@pytest.mark.parametrize("name", ["a.avi", "a.mp4"])
def test_a_file_cut_short_is_found_when_it_is_opened(tmp_path: Path, name: str) -> None:
    content = write_video(tmp_path / name, frames(20)).read_bytes()
    (tmp_path / f"cut_{name}").write_bytes(content[: len(content) * 7 // 8])
    with pytest.raises(ValueError, match=rf"cut_{name} (cannot be decoded|is damaged at frame)"):
        open_source(tmp_path / f"cut_{name}", 3)


def test_a_resolution_that_changes_inside(tmp_path: Path) -> None:
    small, large = (write_video(tmp_path / n, frames(4, h), "mjpeg") for n, h in (("s.mjpeg", 24), ("l.mjpeg", 48)))
    (tmp_path / "mixed.mjpeg").write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(ValueError, match=r"the last frame of .*mixed\.mjpeg is 32x48, the first 32x24"):
        VideoStream(tmp_path / "mixed.mjpeg")
    (tmp_path / "inner.mjpeg").write_bytes(small.read_bytes() + large.read_bytes() + small.read_bytes())
    stream = VideoStream(tmp_path / "inner.mjpeg")
    with pytest.raises(ValueError, match=r"frame 5 of .*inner\.mjpeg is 32x48, frame 1 32x24"):
        stream.read(0, 12)


def test_errors_say_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video", encoding="utf-8")
    with pytest.raises(ValueError, match=r"text\.mp4 cannot be decoded"):
        VideoStream(tmp_path / "text.mp4")
    (tmp_path / "nothing.avi").write_bytes(b"")
    with pytest.raises(ValueError, match=r"nothing\.avi is empty"):
        VideoStream(tmp_path / "nothing.avi")
    stream = VideoStream(write_video(tmp_path / "a.mp4", frames(4)))
    with pytest.raises(ValueError, match=r"a\.mp4 ends before frame 6: it has 4"):
        stream.read(4, 2)
