import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from video_files import frames, write_kth, write_video

from plasm.cli import main
from plasm.data import create_dataset
from plasm.data.datasets import count_clips
from plasm.data.kth import prepare_kth, read_sequences
from plasm.data.video import VideoStream


def prepare(root: Path, *options: str) -> str:
    result = CliRunner().invoke(main, ["data", "prepare", "kth", "--data-dir", str(root), *options])
    return result.output


def levels(clip: torch.Tensor) -> list[int]:
    return (clip.mean((1, 2, 3)) * 255 / 4).round().int().tolist()


def test_prepare_prints_counts_and_windows_are_the_fields(tmp_path: Path) -> None:
    write_kth(tmp_path, {"person01_walking_d1": 40, "person02_running_d2": 40, "person17_boxing_d4": 40})
    (tmp_path / "00sequences.txt").write_text(
        "The frames of each sequence:\n\nperson01_walking_d1\t\tframes\t1-9, 10-25, 30-40\n"
        "person02_running_d2\t\tframes\t3-40\nperson17_boxing_d4\t\tframes\t1-20, 22-60\n"
        "person13_handclapping_d3 *missing*\n"
    )
    out = prepare(tmp_path)
    assert "kth_128.npy: 2 MiB" in out
    assert "no stream is long enough for a clip of 30 frames" in out
    assert sorted(file.name for file in tmp_path.glob("kth*")) == ["kth_128.json", "kth_128.npy"]
    cache = np.load(tmp_path / "kth_128.npy", mmap_mode="r")
    assert (cache.dtype, cache.shape[1:]) == (np.uint8, (128, 128))
    splits = {split: create_dataset("kth", tmp_path, split, num_frames=10) for split in ("train", "val", "test")}
    clips = {split: [levels(clips[number]) for number in range(len(clips))] for split, clips in splits.items()}
    both = sorted(clips["train"] + clips["val"])  # one person each
    # Frame numbers are from 1 in the file, from 0 here: 1-25 joined, 30-40; running every 3 frames, from the end.
    walking = [list(range(start, start + 10)) for start in (5, 15, 30)]
    running = [list(range(start, start + 10)) for start in range(3, 31, 3)]
    assert both == sorted(walking + running)
    # The official range ends after the video: what there is is used.
    assert clips["test"] == [list(range(start, start + 10)) for start in (0, 10, 30)]
    assert splits["test"][0].shape == (10, 1, 128, 128)
    assert "Clips are cut from the ends of runs of frames backwards" in out
    assert count_clips("kth", tmp_path, num_frames=10)["test"] == (3, None)
    assert count_clips("kth", tmp_path, num_frames=10, stride=1)["test"][0] == 11 + 10
    with pytest.raises(ValueError, match="stride of at least 1, got 10 and 0"):
        count_clips("kth", tmp_path, num_frames=10, stride=0)


def test_counts_beside_the_papers(tmp_path: Path) -> None:
    write_kth(tmp_path, {f"person{person}_boxing_d1": 61 for person in ("01", "02", "17")})
    out = prepare(tmp_path)
    assert "train         2 clips of 30 frames (the paper: 5,200, with the validation clips)" in out
    assert "test          2 clips of 30 frames (the paper: 3,167)" in out
    assert "test          1 clips of 50 frames\n" in out
    count = CliRunner().invoke(main, ["data", "count", "kth", "--data-dir", str(tmp_path), "--num-frames", "30"])
    assert count.output in out


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["person01_boxing_d1", "person02_boxing_d1", "person17_boxing_d1"]
    write_kth(tmp_path, dict.fromkeys(names, 12))
    decoded: list[str] = []
    read = VideoStream.read

    def stop_at_the_third(self: VideoStream, *args: object, **kwargs: object) -> np.ndarray:
        if kwargs:
            decoded.append(self.file.name[:8])
            if decoded == ["person01", "person02", "person17"]:
                raise KeyboardInterrupt
        return read(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(VideoStream, "read", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        prepare_kth(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no kth_128\.npy; make it: plasm data prepare kth"):
        create_dataset("kth", tmp_path, "train")
    with (tmp_path / "kth_128.journal").open("a") as journal:
        journal.write('{"person17_box')  # half a line
    prepare_kth(tmp_path)
    assert decoded == ["person01", "person02", "person17", "person17"]
    resumed = (tmp_path / "kth_128.npy").read_bytes()
    (tmp_path / "kth_128.npy").unlink()
    assert prepare_kth(tmp_path).read_bytes() == resumed
    assert len(decoded) == 7
    prepare_kth(tmp_path)
    assert len(decoded) == 7


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    names = [f"person{person:02d}_boxing_d1" for person in range(1, 26)]
    write_kth(tmp_path, dict.fromkeys(names, 60))
    straight = prepare_kth(tmp_path).read_bytes()
    (tmp_path / "kth_128.npy").unlink()
    journal = tmp_path / "kth_128.journal"
    command = [sys.executable, "-m", "plasm", "data", "prepare", "kth", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command) as process:
        while process.poll() is None and not (journal.is_file() and len(journal.read_text().splitlines()) > 3):
            time.sleep(0.01)
        process.kill()
    assert not (tmp_path / "kth_128.npy").exists()
    # What was done is not done again: these videos could not be read any more.
    for name in names[:3]:
        (tmp_path / "boxing" / f"{name}_uncomp.avi").write_bytes(b"no video")
    assert prepare_kth(tmp_path).read_bytes() == straight
    assert not journal.exists()


def test_missing_and_damaged_videos(tmp_path: Path) -> None:
    assert "there is no" in prepare(tmp_path)
    write_kth(tmp_path, {"person01_boxing_d1": 8, "person02_boxing_d1": 8, "person17_boxing_d1": 8})
    (tmp_path / "boxing" / "person02_boxing_d1_uncomp.avi").unlink()
    assert "1 of 3 videos of 00sequences.txt are not in" in prepare(tmp_path)
    (tmp_path / "boxing" / "person02_boxing_d1_uncomp.avi").write_bytes(b"no video")
    assert "person02_boxing_d1_uncomp.avi cannot be decoded" in prepare(tmp_path)
    prepare_kth(tmp_path, on_error="skip")
    assert len(create_dataset("kth", tmp_path, "test", num_frames=8)) == 1
    with pytest.raises(ValueError, match=r"persons \[1, 17\], none of them for val"):
        create_dataset("kth", tmp_path, "val", num_frames=8)
    with pytest.raises(ValueError, match="no stream is long enough for a clip of 30"):
        create_dataset("kth", tmp_path, "test", num_frames=30)


def test_sequences_that_make_no_sense(tmp_path: Path) -> None:
    file = tmp_path / "00sequences.txt"
    file.write_text("nothing")
    with pytest.raises(ValueError, match="lists no videos"):
        read_sequences(file)
    file.write_text("person01_boxing_d1 frames 9-3")
    with pytest.raises(ValueError, match="person01_boxing_d1 the range 9-3"):
        read_sequences(file)


def test_videos_may_lie_together(tmp_path: Path) -> None:
    write_video(tmp_path / "person20_running_d1_uncomp.avi", frames(6))
    (tmp_path / "00sequences.txt").write_text("person20_running_d1 frames 1-6")
    prepare_kth(tmp_path)
    assert len(create_dataset("kth", tmp_path, "test", num_frames=3)) == 2


def test_ranges_that_overlap_are_joined_and_bad_lines_named(tmp_path: Path) -> None:
    file = tmp_path / "00sequences.txt"
    file.write_text(
        "person16_handwaving_d4\t\tframes\t1-100, 207-311, 212-456, 457-460\nperson17_boxing_d1 frames 9-12, 1-8\n"
    )
    assert read_sequences(file) == {"person16_handwaving_d4": [(1, 100), (207, 460)], "person17_boxing_d1": [(1, 12)]}
    file.write_text("person17_boxing_d1 110 192 \nboxing/person17_boxing_d1_uncomp.avi 1 110\n\nperson18_boxing_d1 3 4")
    assert read_sequences(file) == {"person17_boxing_d1": [(1, 192)], "person18_boxing_d1": [(3, 4)]}
    file.write_text("person01_boxing_d1 frames 1-9\nperson02_boxing_d1 frames 1 to 9\n")
    with pytest.raises(ValueError, match="cannot be read: 'person02_boxing_d1 frames 1 to 9'"):
        read_sequences(file)


def test_frames_of_mcnets_lists(tmp_path: Path) -> None:
    write_kth(tmp_path, {"person01_walking_d1": 40, "person02_walking_d1": 40, "person17_walking_d1": 40})
    train, test = tmp_path / "train_data_list_trimmed.txt", tmp_path / "test_data_list.txt"
    lines = "person01_walking_d1 5 14\nperson01_walking_d1 21 45\nperson02_walking_d1 3 9\nperson02_walking_d1 8 14\n"
    beside = tmp_path.parent / f"{tmp_path.name}.txt"
    beside.write_text(lines + "person17_walking_d1 11 20\n")
    official = tmp_path / "00sequences.txt"
    official.write_text(official.read_text().replace("1-40", "1-50"))
    prepare_kth(tmp_path)

    def cut(**options: str) -> dict[str, list[list[int]]]:
        splits = {
            name: create_dataset("kth", tmp_path, name, num_frames=10, **options) for name in ("train", "val", "test")
        }  # type: ignore[arg-type]
        return {name: [levels(clips[number]) for number in range(len(clips))] for name, clips in splits.items()}  # type: ignore[arg-type]

    def runs(*firsts: int) -> list[list[int]]:
        return [list(range(first, first + 10)) for first in firsts]

    whole = cut()
    assert sorted(whole["train"] + whole["val"]) == sorted(2 * runs(0, 10, 20, 30))
    # From 1 in the list, from 0 here; what the list has twice counts once, and the video ends at 40.
    trimmed = cut(frames=str(beside))
    assert sorted(trimmed["train"] + trimmed["val"]) == sorted(runs(4, 20, 30) + runs(4))
    assert trimmed["test"] == runs(10)
    train.write_text(lines)
    with pytest.raises(ValueError, match=r"as far as train_data_list_trimmed\.txt goes, .* none of them for test"):
        cut()
    test.write_text("person17_walking_d1 11 20\n")
    assert cut() == cut(frames=f"{train.name},{test}") == trimmed
    assert cut(frames="00sequences.txt") == whole
    train.write_text(lines + "person01_walking_d1 45 55\n")
    with pytest.raises(ValueError, match="not all of the frames 21-55 of person01_walking_d1 that train_data"):
        cut()
    # Prepared with the list, the cache has what the list has beyond the official ranges.
    official.unlink()
    (tmp_path / "kth_128.npy").unlink()
    prepare_kth(tmp_path)
    assert cut()["test"] == runs(10)
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        cut(frames="none.txt")
