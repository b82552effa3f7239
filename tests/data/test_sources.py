import logging
import os
import stat
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from video_files import encode_image, frames, levels, write_images, write_video

from plasm.data.frames import FrameFormat
from plasm.data.limits import FileTooLargeError
from plasm.data.sources import (
    find_images,
    find_sources,
    find_videos,
    image_files,
    long_enough,
    natural_key,
    open_source,
    open_sources,
)
from plasm.data.streams import ImageStream


def test_a_damaged_file_among_a_thousand_is_named_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(1000):
        np.save(tmp_path / f"{number}.npy", np.zeros((2, 4, 4), np.uint8))
    (tmp_path / "4.npy").write_bytes((tmp_path / "4.npy").read_bytes()[:140])
    sources = find_sources(tmp_path)
    with pytest.raises(ValueError, match=r"1 of 1000 sources cannot be used: .*4\.npy.*on_error=skip"):
        open_sources(sources, lambda path: open_source(path, 1), "raise")
    with caplog.at_level(logging.WARNING):
        streams = open_sources(sources, lambda path: open_source(path, 1), "skip")
    assert len(streams) == 999
    assert "1 of 1000" in caplog.text
    assert "4.npy" in caplog.text
    with pytest.raises(ValueError, match="raise or skip"):
        open_sources(sources, lambda path: [], "ignore")  # type: ignore[arg-type]


def test_what_is_found_and_in_which_order(tmp_path: Path) -> None:
    write_images(tmp_path / "b" / "10", frames(1))
    write_images(tmp_path / "b" / "9", frames(2))
    for name in ("a.mp4", "c.seq", "d.npz", "notes.txt", ".hidden.mp4"):
        (tmp_path / name).write_bytes(b"")
    found = [path.relative_to(tmp_path).as_posix() for path in find_sources(tmp_path)]
    assert found == ["a.mp4", "b/9", "b/10", "c.seq", "d.npz"]
    assert [path.name for path in find_videos(tmp_path)] == ["a.mp4", "c.seq"]
    assert len(find_images(tmp_path)) == 3
    assert sorted(["10", "9", "a1"], key=natural_key) == ["9", "10", "a1"]
    assert sorted(["b²", "²", "a٣", "a2"], key=natural_key) == ["a2", "a٣", "b²", "²"]


def test_hidden_files_are_no_data(tmp_path: Path) -> None:
    """macOS writes ._1.png beside 1.png on every disk that is not its own."""
    folder = write_images(tmp_path / "a", frames(2))
    for name in ("a/._1.png", "__MACOSX/._1.png", "._a.mp4", ".thumbnails/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert find_sources(tmp_path) == [folder]
    assert [path.name for path in find_images(tmp_path)] == ["0.png", "1.png"] == [p.name for p in image_files(folder)]
    assert find_videos(tmp_path) == []
    assert open_source(folder, 3)[0].num_frames == 2


@pytest.mark.parametrize("ending", ["tif", "webp"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16"])
def test_pages_are_frames(tmp_path: Path, ending: str, mode: str) -> None:
    if ending == "webp" and mode == "I;16":
        pytest.skip("WebP has 8 bits")
    channels = {"RGB": (3,), "L": (), "RGBA": (4,), "I;16": ()}[mode]
    kind = np.uint16 if mode == "I;16" else np.uint8
    pages = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (5, 16, 24, *channels), dtype=kind)
    if mode == "RGBA":
        pages[..., 3] = 255
    images = [Image.fromarray(page) for page in pages]
    file = tmp_path / f"a.{ending}"
    images[0].save(file, save_all=True, append_images=images[1:], lossless=True)
    assert find_sources(tmp_path) == [file]
    (stream,) = open_source(file, 3)
    assert (stream.num_frames, stream.size) == (5, (16, 24))
    read = stream.read(1, 2, 2)
    assert read.dtype == kind
    np.testing.assert_array_equal(read[..., 0], pages[1::2].reshape(2, 16, 24, -1)[..., 0])
    images[0].save(tmp_path / f"b.{ending}", lossless=True)
    with pytest.raises(ValueError, match=rf"a\.{ending} holds several frames"):
        ImageStream([tmp_path / f"b.{ending}", file], "folder")
    file.unlink()
    assert find_sources(tmp_path) == [tmp_path]
    assert open_source(tmp_path / f"b.{ending}", 3)[0].num_frames == 1
    assert open_source(tmp_path, 3)[0].num_frames == 1


def test_gifs_of_one_frame_are_images(tmp_path: Path) -> None:
    for number, page in enumerate(frames(3)):
        write_video(tmp_path / "still" / f"{number}.gif", [page], "gif")
    moving = write_video(tmp_path / "moving" / "a.gif", frames(4), "gif")
    assert find_sources(tmp_path) == [moving, tmp_path / "still"]
    (stream,) = open_source(tmp_path / "still", 3)
    assert levels(stream.read(0, 3)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("ending", ["h5", "nc"])
def test_hdf5_with_one_array_of_frames(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"a.{ending}"
    clips = np.random.default_rng(0).integers(0, 256, (2, 5, 3, 8, 9), dtype=np.uint8)
    with h5py.File(file, "w") as content:
        content["group/clips"], content["time"] = clips, np.arange(5)
    streams = open_source(file, 3)
    assert [stream.num_frames for stream in streams] == [5, 5]
    np.testing.assert_array_equal(streams[1].read(1, 2, 2), clips[1, 1::2].transpose(0, 2, 3, 1))
    with h5py.File(file, "w") as content:
        content["gray"] = clips[0, :, 0]
    np.testing.assert_array_equal(open_source(file, 1)[0].read(0, 5)[..., 0], clips[0, :, 0])
    with h5py.File(file, "a") as content:
        content["other"] = clips
    with pytest.raises(ValueError, match=rf"a\.{ending} holds 2 arrays of frames \(gray, other\), wanted one"):
        open_source(file, 1)


@pytest.mark.parametrize("name", ["a.pgm.gz", "a.txt", "a.mat"])
def test_what_is_not_read_gets_the_kinds_that_are(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b\x08 nothing of use")
    with pytest.raises(ValueError, match=rf"{name} cannot be decoded.*plasm reads videos.*\.png.*\.npy"):
        open_source(tmp_path / name, 3)


def test_a_folder_of_clips_names_one_of_them(tmp_path: Path) -> None:
    for name, clip in (
        ("stills/a/0.png", "stills/a"),
        ("arrays/a.npy", "arrays/a.npy"),
        ("videos/b.mp4", "videos/b.mp4"),
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True)
        if file.suffix == ".png":
            Image.new("L", (8, 8)).save(file)
        else:
            file.touch()
        with pytest.raises(ValueError, match=r"no images of one clip, .*: give one, such as ") as refused:
            open_source(tmp_path / name.partition("/")[0], 3)
        assert str(refused.value).endswith(str(Path(clip)))


def test_one_that_differs_is_told_how(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "a", frames(4))
    (folder / "1.png").write_bytes(encode_image(frames(1)[0].astype(np.uint16), "png", "rgb48be"))
    with pytest.raises(ValueError, match=r"1\.png is of uint16, others of .*a of uint8"):
        open_source(folder, 3)[0].read(0, 4)


def test_gray_palettes_and_colour_in_one_folder(tmp_path: Path) -> None:
    """Tools write a picture of few colours as a palette, and one without any as gray."""
    pages = [Image.fromarray(page) for page in frames(5)]
    mixed = [pages[0].convert("L"), pages[1], pages[2].quantize(), pages[3].convert("RGBA"), pages[4].convert("L")]
    for number, page in enumerate(mixed):
        page.save(tmp_path / f"{number}.png")
    (stream,) = open_source(tmp_path, 3)
    for channels in (1, 3):
        expected = torch.from_numpy(frames(5)[..., :channels]).movedim(3, 1) / 255
        torch.testing.assert_close(stream.read_as(FrameFormat(channels), 0, 5), expected, atol=1e-6, rtol=0)
        for number in range(5):
            alone = stream.read_as(FrameFormat(channels), number, 1)
            torch.testing.assert_close(alone, expected[number : number + 1], atol=1e-6, rtol=0)


def test_animated_pngs_are_a_video_each_and_stills_are_frames(tmp_path: Path) -> None:
    images = [Image.fromarray(page) for page in frames(6)]
    for number in range(2):
        images[0].save(tmp_path / f"{number}.png", save_all=True, append_images=images[1:])
    assert find_sources(tmp_path) == [tmp_path / "0.png", tmp_path / "1.png"]
    assert levels(open_source(tmp_path / "1.png", 3)[0].read(0, 6)).tolist() == list(range(6))
    images[0].save(tmp_path / "0.png")
    with pytest.raises(ValueError, match=r"1\.png holds several frames"):
        open_source(tmp_path, 3)


def test_missing_numbers_part_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number, page in zip([*range(5), *range(60, 65)], frames(10), strict=True):
        (tmp_path / f"{number}.png").write_bytes(encode_image(page))
    streams = open_source(tmp_path, 3)
    assert [levels(stream.read(0, 5)).tolist() for stream in streams] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert "lacks frames: it is read as 2 clips, 0.png to 4.png; 60.png to 64.png" in caplog.text
    with pytest.raises(ValueError, match=r"0\.png to 4\.png has 5 frames, too few for a clip of 6.*60\.png to 64\.png"):
        long_enough(streams, 6)


def test_links_are_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path / "elsewhere" / "a", frames(2))
    write_video(tmp_path / "elsewhere" / "b.avi", frames(2))
    root = tmp_path / "root"
    (root / "c").mkdir(parents=True)
    (root / "a").symlink_to(tmp_path / "elsewhere" / "a")
    (root / "b.avi").symlink_to(tmp_path / "elsewhere" / "b.avi")
    (root / "c" / "again").symlink_to(root)
    (root / "gone.avi").symlink_to(tmp_path / "nowhere.avi")
    assert [path.relative_to(root).as_posix() for path in find_sources(root)] == ["a", "b.avi"]
    assert "gone.avi is no regular file, but a link to none" in caplog.text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("ending", ["jpg", "gif", "mp4", "png", "npy", "h5", "seq", "webp"])
def test_a_pipe_is_no_file(tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / f"a.{ending}"
    os.mkfifo(file)
    with pytest.raises(ValueError, match=rf"a\.{ending} is a pipe or device"):
        open_source(file, 3)
    with pytest.raises(FileNotFoundError, match="holds nothing that is read"):
        find_sources(tmp_path)
    assert f"a.{ending} is no regular file" in caplog.text
    assert stat.S_ISFIFO(file.stat().st_mode)


@pytest.mark.parametrize(
    "ending",
    ["m2ts", "264", "hevc", "ogg", "asf", "mxf", "dv", "nut", "3g2", "f4v", "vob", "m1v", "265", "h265", "ogm", "qt"],
)
def test_the_kinds_of_a_folder_are_those_of_a_file(tmp_path: Path, ending: str) -> None:
    """Content decides what a file is; the list of what is read decides that it is looked at."""
    file = write_video(tmp_path / "a.mkv", frames(3)).rename(tmp_path / f"a.{ending.upper()}")
    assert find_sources(tmp_path) == [file] == find_videos(tmp_path)
    assert levels(open_source(file, 3)[0].read(0, 3)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("ending", ["webp", "tif"])
def test_large_frames_become_small_one_by_one(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = [Image.new("L" if ending == "tif" else "RGB", (512, 512), 6 * n * (1 if ending == "tif" else 0x010101))
              for n in range(40)]  # fmt: skip
    file = tmp_path / f"a.{ending}"
    levels[0].save(file, save_all=True, append_images=levels[1:], **({"lossless": True} if ending == "webp" else {}))
    stream = open_source(file, 1)[0]
    monkeypatch.setenv("PLASM_READ_LIMIT", str(8 / 1024))
    with pytest.raises(FileTooLargeError, match=r"40 frame.* of 512x512"):
        stream.read(0, 40)
    small = stream.read_as(FrameFormat(1, (4, 4)), 1, 20, 2)
    torch.testing.assert_close(small[:, 0, 0, 0] * 255, 6.0 * torch.arange(1, 40, 2), atol=0.01, rtol=0)
