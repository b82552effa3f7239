from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader
from video_files import frames, write_images, write_video

from plasm.data import create_dataset
from plasm.data.datasets import count_clips


def write_images_tree(root: Path, subjects: tuple[int, ...] = (1, 5, 9, 11), count: int = 80) -> None:
    for subject in subjects:
        name = f"S{subject}_Walking 1.54138969_{{:06d}}.jpg"
        write_images(root / "images", (frames(1, 32, 32, number % 31)[0] for number in range(count)), name)


def levels(clip: torch.Tensor) -> list[int]:
    return (clip.mean((1, 2, 3)) * 255 / 8).round().int().tolist()


def test_images_without_lists(tmp_path: Path) -> None:
    write_images_tree(tmp_path)
    write_images(tmp_path / "images", frames(80, 32, 32), "S9_Eating.54138969_{:06d}.jpg")
    # 8 frames, 5 apart, one clip after the other: 2 in 80 frames.
    assert count_clips("human36m", tmp_path, num_frames=8) == {
        "train": (2, 2_624),
        "val": (2, None),
        "test": (4, 1_135),
    }
    clips = create_dataset("human36m", tmp_path, "test", num_frames=8)
    assert clips[0].shape == (8, 3, 128, 128)
    assert levels(clips[1]) == [number % 31 for number in range(40, 80, 5)]
    assert len(create_dataset("human36m", tmp_path, "test", num_frames=8, stride=20)) == 6
    assert torch.equal(next(iter(DataLoader(clips, 2, num_workers=2)))[1], clips[1])
    names = [
        {s.name for s in create_dataset("human36m", tmp_path, split, num_frames=8).streams}
        for split in ("train", "val")
    ]
    assert not names[0] & names[1]


def test_openstls_lists(tmp_path: Path) -> None:
    write_images_tree(tmp_path)
    (tmp_path / "train.txt").write_text(
        "images/S1_Walking 1.54138969_,0\nimages/S1_Walking 1.54138969_,7\nimages/S5_Walking 1.54138969_,3\n"
    )
    (tmp_path / "test.txt").write_text("images/S9_Walking 1.54138969_,2,30\n\n")
    counts = count_clips("human36m", tmp_path, num_frames=8)
    assert sorted(counts[split][0] for split in ("train", "val")) == [1, 2]
    clips = create_dataset("human36m", tmp_path, "test", num_frames=8)
    assert [levels(clip) for clip in (clips[0],)] == [[number % 31 for number in range(2, 42, 5)]]
    (tmp_path / "test.txt").write_text("images/S9_Walking 1.54138969_,60")
    with pytest.raises(FileNotFoundError, match=r"test\.txt names images/S9_Walking 1\.54138969_ 80"):
        create_dataset("human36m", tmp_path, "test", num_frames=8)
    (tmp_path / "test.txt").write_text("S9")
    with pytest.raises(ValueError, match=r"lines such as .* it holds 'S9'"):
        create_dataset("human36m", tmp_path, "test", num_frames=8)
    (tmp_path / "images" / "S9_Walking 1.54138969_000004.jpg").unlink()
    (tmp_path / "test.txt").write_text("images/S9_Walking 1.54138969_,2")
    with pytest.raises(FileNotFoundError, match="images are missing between"):
        create_dataset("human36m", tmp_path, "test", num_frames=8)


def test_plain_videos(tmp_path: Path) -> None:
    for subject in (1, 6, 8, 9):
        write_video(tmp_path / f"S{subject}" / "Videos" / "Walking.54138969.mp4", frames(22, 32, 32))
    write_video(tmp_path / "S9" / "Videos" / "Eating.54138969.mp4", frames(22))
    counts = count_clips("human36m", tmp_path, num_frames=4, size=16)
    assert [counts[split][0] for split in ("train", "val", "test")] == [2, 1, 1]
    clip = create_dataset("human36m", tmp_path, "test", num_frames=4, size=16)[0]
    assert clip.shape == (4, 3, 16, 16)
    assert levels(clip) == [0, 5, 10, 15]


def test_errors_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no images and no videos of Human3"):
        create_dataset("human36m", tmp_path, "train")
    write_video(tmp_path / "S1" / "Walking.1.mp4", frames(6))
    with pytest.raises(ValueError, match="step is at least 1, got -1"):
        create_dataset("human36m", tmp_path, "train", step=-1)
    with pytest.raises(ValueError, match="no recording of the walking scene and the subjects for test"):
        create_dataset("human36m", tmp_path, "test")
    with pytest.raises(ValueError, match="1 recording for training"):
        create_dataset("human36m", tmp_path, "val")
    write_video(tmp_path / "S9" / "Walking.1.mp4", frames(6))
    with pytest.raises(ValueError, match=r"1 of 1 sources.*has 6 frames, too few for a clip of 36"):
        create_dataset("human36m", tmp_path, "test", num_frames=8)
    # What names no subject is something else.
    write_video(tmp_path / "Walking.mp4", frames(6))
    with pytest.raises(ValueError, match=r"1 of 1 sources"):
        create_dataset("human36m", tmp_path, "test", num_frames=8)
