from pathlib import Path

import numpy as np
import pytest
from video_files import encode_image, frames, levels, write_images

from plasm.data.sources import find_sources, open_source


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


def test_an_image_of_another_size(tmp_path: Path) -> None:
    write_images(tmp_path / "images", [*frames(2), *frames(1, 40), *frames(1)])
    with pytest.raises(ValueError, match=r"2\.png is 32x40, others of .*images 32x24: .* convert it"):
        open_source(tmp_path / "images", 3)[0].read(0, 4)


def test_errors_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.mp4"):
        open_source(tmp_path / "none.mp4", 3)
    with pytest.raises(FileNotFoundError, match="no folder"):
        find_sources(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds nothing that is read: plasm reads videos"):
        find_sources(tmp_path / "empty")
    with pytest.raises(ValueError, match="no frames"):
        open_source(tmp_path / "empty", 3)
    np.save(tmp_path / "zero.npy", np.zeros((0, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="no frames"):
        open_source(tmp_path / "zero.npy", 1)
    (tmp_path / "bad.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="whole"):
        open_source(tmp_path / "bad.npz", 3)
    np.savez(tmp_path / "objects.npz", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"2 arrays|pickle"):
        open_source(tmp_path / "objects.npz", 3)
