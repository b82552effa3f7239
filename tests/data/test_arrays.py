from pathlib import Path

import numpy as np
import pytest
import torch
from video_files import frames, write_images, write_video

from plasm.data import FrameFormat, open_source, read_clips, read_streams

CLIP = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 9), dtype=np.uint8)  # (T, C, H, W)


@pytest.mark.parametrize(
    ("array", "channels", "expected"),
    [
        (CLIP[:, 0], 1, CLIP[None, :, :1]),
        (CLIP, 3, CLIP[None]),
        (CLIP.transpose(0, 2, 3, 1), 3, CLIP[None]),
        (CLIP[:, :1], 1, CLIP[None, :, :1]),
        (np.stack([CLIP, CLIP]), 3, np.stack([CLIP, CLIP])),
        (np.stack([CLIP, CLIP]).transpose(0, 1, 3, 4, 2), 3, np.stack([CLIP, CLIP])),
    ],
)
def test_layouts(tmp_path: Path, array: np.ndarray, channels: int, expected: np.ndarray) -> None:
    np.save(tmp_path / "clip.npy", array)
    np.savez_compressed(tmp_path / "clip.npz", clips=array)
    np.save(tmp_path / "float.npy", array.astype(np.float64) / 255)
    for file in ("clip.npy", "clip.npz", "float.npy"):
        clips = read_clips(tmp_path / file, channels)
        assert clips.dtype == torch.float32
        torch.testing.assert_close(clips, torch.from_numpy(expected).float() / 255)


def test_videos_and_folders_and_a_limit(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", frames(9))
    write_images(tmp_path / "images", frames(9))
    for source in ("a.avi", "images"):
        assert read_clips(tmp_path / source, 3).shape == (1, 9, 3, 24, 32)
        streams = open_source(tmp_path / source, 1)
        clips = read_streams(streams, FrameFormat(1, (12, 8)), limit=4, step=2)
        assert clips.shape == (1, 4, 1, 12, 8)
        assert (clips.mean((0, 2, 3, 4)) * 255 / 8).round().tolist() == [0, 2, 4, 6]
        assert read_streams(streams, FrameFormat(1), step=2).shape[1] == 5


def test_errors_say_what_is_wrong(tmp_path: Path) -> None:
    def save(name: str, array: np.ndarray) -> Path:
        np.save(tmp_path / name, array)
        return tmp_path / name

    with pytest.raises(ValueError, match=r"a\.npy has 3 channel\(s\), from which 2"):
        read_clips(save("a.npy", CLIP), 2)
    with pytest.raises(ValueError, match=r"\[0, 1\].*float32"):
        read_clips(save("b.npy", CLIP.astype(np.float32)), 3)
    with pytest.raises(ValueError, match="int64"):
        read_clips(save("c.npy", CLIP.astype(np.int64)), 3)
    with pytest.raises(ValueError, match=r"\(6, 7, 8, 9\).*C = 3"):
        read_clips(save("d.npy", np.zeros((6, 7, 8, 9), np.uint8)), 3)
    with pytest.raises(FileNotFoundError):
        read_clips(tmp_path / "none.npy", 3)
    np.savez(tmp_path / "two.npz", a=CLIP, b=CLIP)
    with pytest.raises(ValueError, match="2 arrays"):
        read_clips(tmp_path / "two.npz", 3)
    with pytest.raises(ValueError, match=r"\[0, 1\].*float64"):
        read_clips(save("d.npy", np.full((3, 4, 4), np.nan)), 1)
    with pytest.raises(ValueError, match="no frames"):
        read_clips(save("e.npy", np.zeros((0, 4, 4))), 1)
    with pytest.raises(ValueError, match="<U1"):
        read_clips(save("f.npy", np.array(["a"])), 1)
    (tmp_path / "g.npy").write_bytes(b"")
    np.savez(tmp_path / "h.npz", a=CLIP)
    (tmp_path / "h.npz").write_bytes((tmp_path / "h.npz").read_bytes()[:-30])
    for name in ("g.npy", "h.npz"):
        with pytest.raises(ValueError, match="not a whole"):
            read_clips(tmp_path / name, 3)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        read_clips(tmp_path / "objects.npy", 3)


def test_what_the_file_does_not_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    camera = (CLIP.astype(np.uint16) * 16)[:, 0]  # 12 bits
    np.savez(tmp_path / "a.npz", x=camera.transpose(1, 2, 0), y=CLIP)
    clips = read_clips(tmp_path / "a.npz", 1, array="x", axes="YXT")
    assert "a.npz comes out nearly black" in caplog.text
    caplog.clear()
    clips = read_clips(tmp_path / "a.npz", 1, array="x", axes="YXT", value_range=(0, 4080))
    torch.testing.assert_close(clips[0, :, 0], torch.from_numpy(CLIP[:, 0] / 255).float())
    values = (CLIP[:, 0].astype(np.float32) - 100) / 2
    values[0, 0, 0] = np.nan
    np.save(tmp_path / "b.npy", values)
    clips = read_clips(tmp_path / "b.npy", 1, fill=-50, value_range=(-50, 77.5))
    assert clips[0, 0, 0, 0, 0] == 0
    torch.testing.assert_close(clips[0, 1:, 0], torch.from_numpy(CLIP[1:, 0] / 255).float())
    assert not caplog.text


@pytest.mark.parametrize("fill", ["abc", (0, 1), [0.5]])
def test_what_is_filled_in_is_a_number(fill: object, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((4, 8, 8), np.nan, np.float32))
    with pytest.raises(ValueError, match="fill is a number, such as 0, got "):
        read_clips(tmp_path / "a.npy", 1, fill=fill)  # type: ignore[arg-type]
