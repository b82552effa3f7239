import pickle
from pathlib import Path

import numpy as np
import pytest
from video_files import encode_image, frames, write_images, write_video

from plasm.data.sources import find_sources, open_source
from plasm.data.streams import VideoStream


def levels(array: np.ndarray) -> np.ndarray:
    """Which frames of ``frames`` these are."""
    return (array[..., :3].mean((1, 2, 3)) / 8).round().astype(int)


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
    copy = pickle.loads(pickle.dumps(stream))  # what workers get
    for start, count, step in ((0, 23, 1), (7, 3, 1), (1, 4, 5), (22, 1, 1), (4, 2, 9)):
        read = copy.read(start, count, step)
        assert read.dtype == np.uint8
        assert levels(read).tolist() == list(range(start, start + count * step, step))
    assert stream.read(3, 2, gray=True).shape[3] in (1, 3, 4)  # colour stays where gray is not stored apart


def test_reading_starts_at_a_keyframe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the end of a long video would cost its whole length."""
    stream = VideoStream(write_video(tmp_path / "a.mp4", frames(30)))
    monkeypatch.setattr(VideoStream, "_decode", _only_by_seeking(VideoStream._decode))
    assert levels(stream.read(27, 2)).tolist() == [27, 28]


def _only_by_seeking(decode):
    def wrapped(self, wanted, gray, seek):
        assert seek
        return decode(self, wanted, gray, seek)

    return wrapped


def test_a_folder_of_images_in_natural_order(tmp_path: Path) -> None:
    (stream,) = open_source(write_images(tmp_path / "images", frames(12)), 3)
    assert levels(stream.read(1, 4, 3)).tolist() == [1, 4, 7, 10]
    (stream,) = open_source(write_images(tmp_path / "jpegs", frames(3), "f_{:04d}.jpg"), 3)
    assert levels(stream.read(0, 3)).tolist() == [0, 1, 2]


def test_16_bits_and_alpha_stay_as_they_are(tmp_path: Path) -> None:
    deep = np.arange(24 * 32, dtype=np.uint16).reshape(1, 24, 32, 1) * 64
    for number, (page, pixels) in enumerate([(deep[0, ..., 0], "gray16be"), (deep[0].repeat(3, 2), "rgb48be")]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "a.png").write_bytes(encode_image(page, "png", pixels))
        read = open_source(folder, 3)[0].read(0, 1)
        assert read.dtype == np.uint16
        np.testing.assert_array_equal(read, deep.repeat(1 if number == 0 else 3, 3))
    alpha = np.random.default_rng(0).integers(0, 256, (24, 32, 4), dtype=np.uint8)
    (tmp_path / "alpha").mkdir()
    (tmp_path / "alpha" / "a.png").write_bytes(encode_image(alpha, "png", "rgba"))
    np.testing.assert_array_equal(open_source(tmp_path / "alpha", 3)[0].read(0, 1)[0], alpha)


def test_arrays_are_mapped(tmp_path: Path) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (2, 5, 3, 8, 9), dtype=np.uint8)
    np.save(tmp_path / "a.npy", batch)
    np.savez(tmp_path / "a.npz", batch.transpose(0, 1, 3, 4, 2))
    for name in ("a.npy", "a.npz"):
        streams = open_source(tmp_path / name, 3)
        assert [stream.num_frames for stream in streams] == [5, 5]
        np.testing.assert_array_equal(streams[1].read(1, 2, 2), batch[1, 1::2].transpose(0, 2, 3, 1))
    assert not open_source(tmp_path / "a.npy", 3)[0].read(0, 2).flags.owndata


def test_a_resolution_that_changes_inside(tmp_path: Path) -> None:
    small, large = (write_video(tmp_path / n, frames(4, h), "mjpeg") for n, h in (("s.mjpeg", 24), ("l.mjpeg", 48)))
    (tmp_path / "mixed.mjpeg").write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(ValueError, match=r"mixed\.mjpeg changes from 32x24 to 32x48 inside"):
        open_source(tmp_path / "mixed.mjpeg", 3)
    (tmp_path / "inner.mjpeg").write_bytes(small.read_bytes() + large.read_bytes() + small.read_bytes())
    (stream,) = open_source(tmp_path / "inner.mjpeg", 3)
    with pytest.raises(ValueError, match=r"inner\.mjpeg changes from 32x24 to 32x48 at frame 5"):
        stream.read(0, 12)
    write_images(tmp_path / "images", [*frames(2), *frames(1, 40), *frames(1)])
    with pytest.raises(ValueError, match=r"2\.png is 32x40, others of .*images 32x24"):
        open_source(tmp_path / "images", 3)[0].read(0, 4)


@pytest.mark.parametrize("name", ["a.avi", "a.mp4"])
def test_a_file_cut_short_is_found_when_it_is_opened(tmp_path: Path, name: str) -> None:
    content = write_video(tmp_path / name, frames(20)).read_bytes()
    (tmp_path / f"cut_{name}").write_bytes(content[: len(content) * 7 // 8])
    with pytest.raises(ValueError, match=f"cut_{name} cannot be decoded"):
        open_source(tmp_path / f"cut_{name}", 3)


def test_errors_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.mp4"):
        open_source(tmp_path / "none.mp4", 3)
    with pytest.raises(FileNotFoundError, match="no folder"):
        find_sources(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no video"):
        find_sources(tmp_path / "empty")
    with pytest.raises(ValueError, match="no frames"):
        open_source(tmp_path / "empty", 3)
    np.save(tmp_path / "zero.npy", np.zeros((0, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="no frames"):
        open_source(tmp_path / "zero.npy", 1)
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(ValueError, match=r"text\.mp4 cannot be decoded"):
        open_source(tmp_path / "text.mp4", 3)
    (tmp_path / "nothing.avi").write_bytes(b"")
    with pytest.raises(ValueError, match=r"nothing\.avi cannot be decoded"):
        open_source(tmp_path / "nothing.avi", 3)
    (tmp_path / "bad.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="whole"):
        open_source(tmp_path / "bad.npz", 3)
    np.savez(tmp_path / "objects.npz", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"2 arrays|pickle"):
        open_source(tmp_path / "objects.npz", 3)
