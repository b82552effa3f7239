from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from video_files import frames, write_hickle, write_images, write_seq, write_video

from plasm.data import create_dataset
from plasm.data.datasets import count_clips


def levels(clip: torch.Tensor) -> list[int]:
    return (clip.mean((1, 2, 3)) * 255 / 8).round().int().tolist()


def write_kitti(root: Path, drives: int = 3, count: int = 25) -> None:
    for drive in range(drives):
        day = root / "kitti" / "2011_09_26" / f"2011_09_26_drive_{drive:04d}_sync"
        write_images(day / "image_03" / "data", frames(count, 37, 124), "{:010d}.png")
        write_images(day / "image_00" / "data", frames(3, 37, 124), "{:010d}.png")


def test_kitti_raw(tmp_path: Path) -> None:
    write_kitti(tmp_path)
    train = create_dataset("kitticaltech", tmp_path, "train", num_frames=11)
    val = create_dataset("kitticaltech", tmp_path, "val", num_frames=11)
    assert (len(train), len(val)) == (4, 2)
    assert train[0].shape == (11, 3, 128, 160)
    # One after the other, the last of them ends with the recording.
    assert [levels(train[0]), levels(train[1])] == [list(range(3, 14)), list(range(14, 25))]
    assert not {s.name for s in train.streams} & {s.name for s in val.streams}
    assert torch.equal(next(iter(DataLoader(train, 2, num_workers=2)))[1], train[1])
    with pytest.raises(ValueError, match=r"of 2 sources cannot be used.*has 3 frames, too few"):
        create_dataset("kitticaltech", tmp_path, "train", num_frames=11, camera="image_00")


@pytest.mark.parametrize("version", [1, 2, 4])
def test_openstls_arrays(tmp_path: Path, version: int) -> None:
    folder = tmp_path / "kitti_hkl"
    sources = ["city-a"] * 13 + ["road-b"] * 25 + ["city-c"] * 4 + ["road-d"] * 11
    array = np.random.default_rng(0).integers(0, 256, (len(sources), 128, 160, 3), dtype=np.uint8)
    write_hickle(folder / "X_train.hkl", array, version)
    write_hickle(folder / "sources_train.hkl", sources, version)
    seen = set()
    for split in ("train", "val"):
        dataset = create_dataset("kitticaltech", tmp_path, split, num_frames=11)
        for number, (stream, start) in enumerate(dataset.windows):
            first = dataset.streams[stream].first + int(start)
            seen.add(first)
            expected = torch.from_numpy(array[first : first + 11]).movedim(3, 1) / 255
            torch.testing.assert_close(dataset[number], expected)
    assert seen == {2, 16, 27, 42}


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    write_hickle(tmp_path / "X_train.hkl", np.zeros((4, 8, 8, 3), np.uint8))
    with h5py.File(tmp_path / "sources_train.hkl", "w") as content:
        content["data_0"] = np.void(b"cos\nsystem\n")
        content["data_0"].attrs["type"] = [b"pickle"]
    with pytest.raises(ValueError, match=r"sources_train\.hkl holds a pickle"):
        create_dataset("kitticaltech", tmp_path, "train", num_frames=2)
    write_hickle(tmp_path / "sources_train.hkl", ["a", "b"])
    with pytest.raises(ValueError, match=r"\(4, 8, 8, 3\) and .* 2 names"):
        create_dataset("kitticaltech", tmp_path, "train", num_frames=2)


def test_caltech_seq_every_third_frame_of_the_test_sets(tmp_path: Path) -> None:
    pages = [frames(1, 48, 64, number // 2)[0] for number in range(41)]
    for name in ("set05/V000", "set06/V000", "set10/V011"):
        write_seq(tmp_path / "caltech" / f"{name}.seq", pages)
    clips = create_dataset("kitticaltech", tmp_path, "test", num_frames=4)
    # 41 // 3 = 13 frames: 2, 5, ..., 38; the last clip ends with the last of them.
    assert [start for _, start in clips.windows] == [5, 17, 29] * 2
    assert clips[0].shape == (4, 3, 128, 160)
    assert levels(clips[2]) == [number // 2 for number in (29, 32, 35, 38)]
    assert count_clips_test(tmp_path) == (6, None)


def count_clips_test(root: Path) -> tuple[int, int | None]:
    write_kitti(root, 2, 4)
    return count_clips("kitticaltech", root, num_frames=4)["test"]


def test_caltech_as_videos_and_extracted_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "caltech" / "set06" / "V000.avi", frames(12, 48, 64))
    write_images(tmp_path / "caltech" / "set07" / "V000", frames(12, 48, 64), "{:05d}.jpg")
    clips = create_dataset("kitticaltech", tmp_path, "test", num_frames=4)
    assert [levels(clips[number]) for number in range(len(clips))] == [[2, 5, 8, 11]] * 2
    assert len(create_dataset("kitticaltech", tmp_path, "test", num_frames=4, caltech_step=1)) == 6
    with pytest.raises(ValueError, match="caltech_step is at least 1, got 0"):
        create_dataset("kitticaltech", tmp_path, "test", num_frames=4, caltech_step=0)


def test_errors_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no image_03 and no kitti_hkl/X_train\.hkl"):
        create_dataset("kitticaltech", tmp_path, "train")
    with pytest.raises(FileNotFoundError, match=r"no folder .*caltech"):
        create_dataset("kitticaltech", tmp_path, "test")
    write_seq(tmp_path / "caltech" / "set01" / "V000.seq", frames(4))
    with pytest.raises(FileNotFoundError, match="none of the test sets, set06 to set10"):
        create_dataset("kitticaltech", tmp_path, "test")
    write_kitti(tmp_path, 1)
    with pytest.raises(ValueError, match="1 recording of KITTI, wanted 2"):
        create_dataset("kitticaltech", tmp_path, "train", num_frames=11)
