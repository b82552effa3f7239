import io
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from video_files import named

from plasm.data import open_source, read_clips
from plasm.data.layouts import ArrayOptions
from plasm.data.limits import FileTooLargeError
from plasm.data.npy import load_array

FRAMES = np.random.default_rng(0).integers(0, 256, (6, 8, 9), dtype=np.uint8)


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


@pytest.mark.parametrize("kind", [">u2", "<u2", ">f4", ">f8", "|b1"])
@pytest.mark.parametrize("name", ["a.npy", "a.npz", "A.NPY", "A.NPZ"])
def test_byte_orders_and_endings(tmp_path: Path, kind: str, name: str) -> None:
    values = FRAMES > 99 if kind == "|b1" else FRAMES * 257.0 if kind.endswith("u2") else FRAMES / 255
    array, file = values.astype(kind), tmp_path / name
    file.write_bytes(npy(array))
    if name.lower().endswith("z"):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", npy(array))
    expected = array.astype(float) if kind == "|b1" else FRAMES / 255
    np.testing.assert_allclose(read_clips(file, 1)[0, :, 0].numpy(), expected, atol=1e-6)
    assert open_source(file, 1)[0].read(0, 1).dtype.isnative


def test_axes_and_the_array_can_be_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", other=np.zeros(3), cube=FRAMES.transpose(1, 2, 0))
    with pytest.raises(ValueError, match=r"a\.npz holds 2 arrays \(other, cube\), wanted one: give array=NAME"):
        open_source(tmp_path / "a.npz", 1)
    (stream,) = open_source(tmp_path / "a.npz", 1, ArrayOptions(axes="YXT", array="cube"))
    assert (stream.num_frames, stream.size) == (6, (8, 9))
    np.testing.assert_array_equal(stream.read(1, 2, 2)[..., 0], FRAMES[1:4:2])
    np.save(tmp_path / "b.npy", np.stack([FRAMES[:, None], FRAMES[:, None] // 2]))
    streams = open_source(tmp_path / "b.npy", 1, ArrayOptions(axes="byxt"[0] + "TYX"))
    np.testing.assert_array_equal(streams[1].read(5, 1)[0, ..., 0], FRAMES[5] // 2)
    for axes, why in (("YX", "names 2 axes"), ("YYX", "each once"), ("TQX", "Y .rows."), ("TCX", "Y .rows.")):
        with pytest.raises(ValueError, match=why):
            open_source(tmp_path / "a.npz", 1, ArrayOptions(axes=axes, array="cube"))
    np.save(tmp_path / "c.npy", np.zeros((4, 3, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"give axes=TCYX or axes=TYXC"):
        open_source(tmp_path / "c.npy", 3)


def test_missing_values_are_refused_or_filled(tmp_path: Path) -> None:
    values = FRAMES / np.float32(255)
    values[2, 3] = np.nan
    np.save(tmp_path / "a.npy", values)
    (stream,) = open_source(tmp_path / "a.npy", 1)
    with pytest.raises(ValueError, match=r"a\.npy .*row 2.*fill=0"):
        stream.read(0, 6)
    (stream,) = open_source(tmp_path / "a.npy", 1, ArrayOptions(fill=0.5))
    np.testing.assert_array_equal(stream.read(0, 6)[..., 0], np.where(np.isnan(values), np.float32(0.5), values))


def test_a_compressed_array_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = np.stack([FRAMES[:, None]] * 20)
    np.savez_compressed(tmp_path / "a.npz", clips)
    taken = 0
    readinto = zipfile.ZipExtFile.readinto

    def count(self: zipfile.ZipExtFile, place: memoryview) -> int:
        nonlocal taken
        got = readinto(self, place)
        taken += got
        return got

    monkeypatch.setattr(zipfile.ZipExtFile, "readinto", count)
    for stream in open_source(tmp_path / "a.npz", 1):
        np.testing.assert_array_equal(stream.read(0, 6)[..., 0], FRAMES)
    assert taken == clips.nbytes
    np.savez_compressed(tmp_path / "a.npz", clips[::-1] + np.uint8(1))
    assert (load_array(tmp_path / "a.npz")[0, 0, 0] == FRAMES[0] + np.uint8(1)).all()


def test_small_files_of_large_arrays(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (20, 1 << 16, 1 << 16)}
    )
    with zipfile.ZipFile(tmp_path / "zeros.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(1 << 20))
    (stream,) = open_source(tmp_path / "zeros.npz", 1)
    with pytest.raises(FileTooLargeError, match=r"zeros\.npz.*80 GiB"):
        stream.read(0, 1)
    # As long as it says, by a hole.
    with (tmp_path / "hole.npy").open("wb") as content:
        content.write(header.getvalue())
        content.truncate(len(header.getvalue()) + (20 << 32))
    assert open_source(tmp_path / "hole.npy", 1)[0].read(3, 1)[0, 5, 5, 0] == 0
    many = io.BytesIO()
    np.lib.format.write_array_header_1_0(many, {"descr": "|u1", "fortran_order": False, "shape": (10**8, 2, 1, 8, 8)})
    with zipfile.ZipFile(tmp_path / "many.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", many.getvalue())
    with pytest.raises(FileTooLargeError, match=r"many\.npz: 100,000,000 clips"):
        open_source(tmp_path / "many.npz", 1)
    with zipfile.ZipFile(tmp_path / "header.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 4_000_000_000) + bytes(1 << 20))
    with pytest.raises(ValueError, match=r"header\.npz is damaged: its header says that it has 4,000,000,000 bytes"):
        open_source(tmp_path / "header.npz", 1)


def test_damage_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(file, "w", method) as archive:
            archive.writestr("a.npy", npy(FRAMES))
        whole = file.read_bytes()
        assert read_clips(file, 1).shape == (1, 6, 1, 8, 9)
        for place in range(30, len(whole), 7):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
            with named("a.npz"):
                read_clips(file, 1)
    place = whole.index(b"PK\x01\x02")
    for offset, value in ((8, 1), (10, 99)):  # encrypted; an unknown method
        broken = bytearray(whole)
        broken[place + offset] = value
        broken[offset - 2] = value
        file.write_bytes(bytes(broken))
        with pytest.raises(ValueError, match=r"a\.npz is not a whole \.npz file of numbers"):
            read_clips(file, 1)
    for shape in ("(9, -8, 8)", "(1e9, 8, 8)", "(" * 200, f"({1 << 62}, {1 << 62}, 8)", "(9, 8, 8)"):
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
        with pytest.raises(ValueError, match=r"a\.npy"):
            read_clips(tmp_path / "a.npy", 1)


@pytest.mark.parametrize("shape", [f"({'9' * 4000}, 64, 64)", f"(0, {1 << 62}, {1 << 62})", "(10**9, 8, 8)"])
def test_shapes_beyond_any_machine_are_said_in_short(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    with pytest.raises(ValueError, match=r"a\.npy is damaged|a\.npy is not a whole") as error:
        read_clips(tmp_path / "a.npy", 1)
    assert len(str(error.value)) < 500
    assert not any(words in str(error.value) for words in ("malformed node", "object at", "arr.size"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name_and_others_than_arrays(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy/", "")
        archive.writestr("README.txt", "of what it holds")
    with pytest.raises(ValueError, match=r"a\.npz holds no arrays"):
        read_clips(file, 1)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("a.npy", npy(FRAMES))
    assert read_clips(file, 1).shape == (1, 6, 1, 8, 9)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("a.npy", npy(FRAMES[::-1]))
    with pytest.raises(ValueError, match=r"a\.npz holds 2 arrays a, wanted one"):
        open_source(file, 1, ArrayOptions(array="a"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5", "a.tif", "a.nc", "a.mp4"])
def test_pipes_are_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name} is a .*pipe"):
        open_source(tmp_path / name, 1)
    with pytest.raises(ValueError, match=rf"{name} is a .*pipe"):
        load_array(tmp_path / name)
