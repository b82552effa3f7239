import logging
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from video_files import frames, write_images, write_video

from plasm.data import StreamClips, create_dataset
from plasm.data.clips import cut_windows, hold_out, hold_out_fixed, split_sources
from plasm.data.mnist import Split


def create_sources(root: Path) -> None:
    """Ten sources of four kinds, each of other frames."""
    for number in range(4):
        write_video(root / "videos" / f"{number}.avi", frames(10, first=number))
    for number in range(2):
        write_video(root / f"{number}.gif", frames(10, first=number), "gif")
        write_images(root / f"images{number}", frames(10))
        np.save(root / f"{number}.npy", frames(10)[..., :1])


def sources_of(dataset: StreamClips) -> set[str]:
    return {dataset.streams[stream].name for stream, _ in dataset.windows}


def test_a_mixture_of_kinds_split_by_file(tmp_path: Path) -> None:
    create_sources(tmp_path)
    splits = {
        split: create_dataset("clips", tmp_path, split, num_frames=4, channels=1, size=(16, 16), val_share=0.2)
        for split in ("train", "val", "test")
    }
    names = {split: sources_of(dataset) for split, dataset in splits.items()}
    assert all(names.values())
    assert len(names["train"]) > 5
    assert len(set.union(*names.values())) == 10
    for dataset in splits.values():
        assert len(dataset) == 2 * len(sources_of(dataset))
        loader = DataLoader(dataset, 2, num_workers=2)
        batches = torch.cat(list(loader))
        assert batches.shape == (len(dataset), 4, 1, 16, 16)
        assert torch.equal(batches[0], dataset[0])
        assert 0 <= batches.min() <= batches.max() <= 1


def test_folders_decide_where_they_are(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 1)):
        for number in range(count):
            write_video(tmp_path / split / f"{number}.avi", frames(6))
    sizes = [len(create_dataset("clips", tmp_path, split, num_frames=6)) for split in ("train", "val", "test")]
    assert sizes == [2, 1, 1]
    write_video(tmp_path / "val" / "0.avi", frames(6))
    assert len(create_dataset("clips", tmp_path, "train", num_frames=6)) == 3
    (tmp_path / "test" / "0.avi").unlink()
    with pytest.raises(ValueError, match="nothing for test"):
        create_dataset("clips", tmp_path, "test", num_frames=6)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Test"), ("training", "testing"), ("frames/train", "frames/test"), ("TRAIN_set", "test-videos"),
        ("a/Training", "b/Testing"), ("train2017", "test2017"),
    ],
)  # fmt: skip
def test_the_usual_names_of_splits(tmp_path: Path, train: str, test: str, caplog: pytest.LogCaptureFixture) -> None:
    for folder, count in ((train, 3), (test, 2)):
        for number in range(count):
            write_video(tmp_path / folder / f"{number}.avi", frames(6))
    with caplog.at_level(logging.INFO):
        sets = {
            split: sources_of(create_dataset("clips", tmp_path, split, num_frames=6))
            for split in ("train", "val", "test")
        }
    assert [len(each) for each in sets.values()] == [2, 1, 2]
    assert all(name.startswith(str(tmp_path / test)) for name in sets["test"])
    assert not any(name.startswith(str(tmp_path / test)) for name in sets["train"] | sets["val"])
    assert f"train takes 2 source(s) of {train}/" in caplog.text
    assert f"test takes 2 source(s) of {test}/" in caplog.text


@pytest.mark.parametrize("name", ["valid", "Validation", "val", "dev", "Val_frames"])
def test_the_usual_names_of_validation(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    for folder in ("train", name, "test", "more"):
        write_video(tmp_path / folder / "0.avi", frames(6))
    for split, folder in (("train", "train"), ("val", name), ("test", "test")):
        assert sources_of(create_dataset("clips", tmp_path, split, num_frames=6)) == {str(tmp_path / folder / "0.avi")}
    assert "1 in no folder of a split are unused: more/0.avi" in caplog.text


def test_a_link_is_no_second_source(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Else a file would be in training and in testing."""
    for number in range(4):
        write_video(tmp_path / "all" / f"{number}.avi", frames(6, first=number))
    (tmp_path / "again").symlink_to(tmp_path / "all")
    sets = [sources_of(create_dataset("clips", tmp_path, split, num_frames=6)) for split in ("train", "val", "test")]
    assert sum(map(len, sets)) == 4
    for split in ("train", "test"):
        (tmp_path / "splits" / split).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "splits" / split / f"{number}.avi").symlink_to(tmp_path / "all" / f"{number}.avi")
    assert len(create_dataset("clips", tmp_path / "splits", "test", num_frames=6)) == 3
    assert "3 source(s) of test are in another split, too" in caplog.text


def test_a_folder_that_lacks_frames_gives_no_clip_across_them(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for number, page in zip([*range(5), *range(60, 63)], frames(8), strict=True):
            folder = write_images(tmp_path / split / "a", [page], f"{number:03d}.png")
    dataset = create_dataset("clips", tmp_path, "test", num_frames=3, stride=1)
    firsts = [(clip[:, 0, 0, 0] * 255 / 8).round().tolist() for clip in map(dataset.__getitem__, range(len(dataset)))]
    assert firsts == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [5, 6, 7]]
    assert len(create_dataset("clips", tmp_path, "test", num_frames=4)) == 1
    for file in folder.iterdir():
        file.unlink() if file.stem > "059" else None
    assert len(create_dataset("clips", tmp_path, "test", num_frames=5)) == 1


def test_a_list_of_clips_that_fills_the_memory_is_refused(tmp_path: Path) -> None:
    np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (100_000_000, 1, 1)).flush()
    (tmp_path / "test").mkdir()
    (tmp_path / "a.npy").rename(tmp_path / "test" / "a.npy")
    with pytest.raises(ValueError, match=r"a\.npy: a list of 99,999,999 clips would take"):
        create_dataset("clips", tmp_path, "test", num_frames=2, stride=1, channels=1)


def test_step_and_stride_and_size(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for number in range(2):
            write_images(tmp_path / split / str(number), frames(13))
    dataset = create_dataset("clips", tmp_path, "test", num_frames=3, step=2, stride=4)
    assert [start for _, start in dataset.windows] == [0, 4, 8] * 2
    assert (dataset[1][:, 0, 0, 0] * 255 / 8).round().tolist() == [4, 6, 8]
    assert dataset[0].shape == (3, 3, 24, 32)
    write_images(tmp_path / "test" / "other", frames(13, 10))
    with pytest.raises(ValueError, match=r"frames differ in size.*size=\(H, W\)"):
        create_dataset("clips", tmp_path, "test", num_frames=3)
    assert create_dataset("clips", tmp_path, "test", num_frames=3, size=(8, 8))[0].shape == (3, 3, 8, 8)


def test_a_stream_too_short_and_a_damaged_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(4):
        write_video(tmp_path / "test" / f"{number}.avi", frames(8))
    write_video(tmp_path / "test" / "short.avi", frames(3))
    (tmp_path / "test" / "damaged.mp4").write_bytes(b"12345678")
    with pytest.raises(ValueError, match=r"2 of 6 sources.*damaged\.mp4.*short\.avi has 3 frames, too few .* of 8"):
        create_dataset("clips", tmp_path, "test", num_frames=8)
    assert len(create_dataset("clips", tmp_path, "test", num_frames=8, on_error="skip")) == 4
    assert "2 of 6" in caplog.text


def test_verify_finds_damage_in_the_middle(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "test" / "a", frames(9))
    (folder / "4.png").write_bytes(b"no image")
    dataset = create_dataset("clips", tmp_path, "test", num_frames=3)
    with pytest.raises(ValueError, match=r"4\.png"):
        dataset[1]
    with pytest.raises(ValueError, match=r"1 of 1 sources.*4\.png"):
        create_dataset("clips", tmp_path, "test", num_frames=3, verify=True)


def test_errors_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        create_dataset("clips", tmp_path / "none", "train")
    write_video(tmp_path / "a.avi", frames(4))
    with pytest.raises(ValueError, match=r"1 source\(s\), too few to split by file"):
        create_dataset("clips", tmp_path, "train", num_frames=4)
    with pytest.raises(ValueError, match="step is at least 1, got 0"):
        create_dataset("clips", tmp_path, "train", num_frames=4, step=0, stride=1)
    with pytest.raises(ValueError, match="no option colour; it has: array, axes, channels, fill, fit"):
        create_dataset("clips", tmp_path, "train", colour=True)
    (tmp_path / "test").mkdir()
    np.save(tmp_path / "test" / "two.npy", np.zeros((4, 2, 8, 8), np.uint8))
    with pytest.raises(ValueError, match=r"has 2 channel\(s\), from which 3 cannot"):
        create_dataset("clips", tmp_path, "test", num_frames=4)


def test_windows() -> None:
    assert cut_windows(10, 4, 3) == [0, 3, 6]
    assert cut_windows(12, 4, 3, from_end=True) == [2, 5, 8]
    assert cut_windows(3, 4, 1) == cut_windows(3, 4, 2, from_end=True) == []
    with pytest.raises(ValueError, match="at least 1"):
        cut_windows(3, 4, 0)


@settings(max_examples=25)
@given(
    st.sets(st.text(min_size=1), min_size=1), st.sets(st.text(min_size=1)), st.floats(0, 1), st.randoms()
)  # fmt: skip
def test_no_name_has_a_say_in_anothers_side(names: set[str], more: set[str], share: float, random: Random) -> None:
    shuffled = random.sample(sorted(names | more), len(names | more))
    assert hold_out(shuffled, share) & names == hold_out(sorted(names), share)
    assert hold_out(sorted(names), share / 2) <= hold_out(sorted(names), share)


def test_a_share_of_many_names_is_held_out() -> None:
    names = [f"videos/{n}.avi" for n in range(10_000)]
    assert 900 < len(hold_out(names, 0.1)) < 1100
    assert hold_out(names, 0) == set()
    assert hold_out(names, 1) == set(names)


def split_all(root: Path, names: list[str], **shares: float) -> dict[Split, set[str]]:
    told = {"val_share": 0.1, "test_share": 0.1, **shares}
    paths = [root / name for name in names]
    splits: list[Split] = ["train", "val", "test"]
    return {
        split: {path.relative_to(root).as_posix() for path in split_sources(paths, root, split, **told)}
        for split in splits
    }


def test_files_that_are_added_move_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"{n}.mp4" for n in range(400)]
    before = split_all(tmp_path, names[::2])
    after = split_all(tmp_path, names)
    for split, there in before.items():
        assert there == after[split] & set(names[::2])
    assert {split: len(there) > 10 for split, there in before.items()} == dict.fromkeys(before, True)
    assert not caplog.messages


@pytest.mark.parametrize("count", [3, 4, 6, 10])
@pytest.mark.parametrize(("val_share", "test_share"), [(0.1, 0.1), (0, 0), (0.01, 0.98), (0.98, 0.01), (0.45, 0.45)])
def test_few_files_leave_no_split_empty_and_it_is_said(
    count: int, val_share: float, test_share: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"{n}.mp4" for n in range(count)]
    splits = split_all(tmp_path, names, val_share=val_share, test_share=test_share)
    assert all(splits.values())
    assert set.union(*splits.values()) == set(names)
    assert sum(map(len, splits.values())) == count
    by_hash = hold_out(names, test_share), hold_out(names, val_share + test_share)
    if (splits["test"], splits["test"] | splits["val"]) == by_hash:
        assert not caplog.messages
    else:
        assert f"{tmp_path}: the hashes of " in caplog.text
        assert "folders train, val and test keep them apart, or give another" in caplog.text


def test_shares_that_leave_none_for_training(tmp_path: Path) -> None:
    for val, test in ((0.5, 0.5), (-1, 0.1), (2, -3)):
        with pytest.raises(ValueError, match=f"leave something for training, got {val} and {test}"):
            split_all(tmp_path, ["a", "b", "c"], val_share=val, test_share=test)


def test_splits_that_are_published_are_exact_shares_as_ever() -> None:
    names = [f"{n}.avi" for n in range(30)]
    assert hold_out_fixed(names, 0.1) == hold_out_fixed(names[::-1], 0.1)
    assert len(hold_out_fixed(names, 0.1)) == 3
    assert len(hold_out_fixed(names, 0)) == 1
    # KTH's person for validation, of the 16.
    assert hold_out_fixed([str(person) for person in range(1, 17)], 0.1) == {"9"}
