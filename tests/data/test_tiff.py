import builtins
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from video_files import named

from plasm.data import FrameFormat, open_source, read_clips
from plasm.data.layouts import ArrayOptions
from plasm.data.limits import FileTooLargeError
from plasm.data.sources import find_sources

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")

GRAY = np.random.default_rng(0).integers(0, 256, (5, 40, 48), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (5, 40, 48, 3), dtype=np.uint8)
SMOOTH = (np.add.outer(np.arange(5) * 9, np.add.outer(np.arange(40), np.arange(48) * 2)) % 256).astype(np.uint8)


def pages(file: Path, frames: np.ndarray, **options: Any) -> Path:
    """One page a frame, with no word on the axes."""
    with tifffile.TiffWriter(
        file, bigtiff=options.pop("bigtiff", False), byteorder=options.pop("byteorder", "<")
    ) as out:
        for frame in frames:
            out.write(frame, contiguous=False, metadata=None, **options)
    return file


def both(folder: Path, frames: np.ndarray, **options: Any) -> list[Path]:
    """The same frames as pages of one file, and as files of one page."""
    for number, frame in enumerate(frames):
        (folder / "images").mkdir(exist_ok=True)
        pages(folder / "images" / f"{number}.tif", frame[None], **options)
    return [pages(folder / "pages.tif", frames, **options), folder / "images"]


@pytest.mark.parametrize(
    "options",
    [
        {}, {"tile": (16, 16), "compression": "zlib", "predictor": True}, {"compression": "zstd"},
        {"compression": "lzw"}, {"compression": "lzma"}, {"compression": "packbits"}, {"bigtiff": True},
        {"byteorder": ">"}, {"byteorder": ">", "bigtiff": True, "tile": (16, 32)}, {"rowsperstrip": 7},
        {"compression": "webp"}, {"compression": "jpeg2000"}, {"compression": "png"},
    ],
)  # fmt: skip
def test_every_way_to_store_pixels(tmp_path: Path, options: dict[str, Any]) -> None:
    if options.get("compression") == "webp":
        options = {**options, "compressionargs": {"lossless": True}}
    for frames, colour in ((GRAY, False), (COLOUR, True)):
        if options.get("compression") == "webp" and not colour:
            continue
        for path in both(tmp_path, frames, photometric="rgb" if colour else "minisblack", **options):
            (stream,) = open_source(path, 3)
            assert stream.num_frames == 5
            read = stream.read(0, 5)
            np.testing.assert_array_equal(read if colour else read[..., 0], frames)
            np.testing.assert_array_equal(stream.read(1, 2, 2), read[1:4:2])
    if options.get("compression") in (None, "zlib") and "predictor" not in options:
        for path in both(tmp_path, COLOUR.transpose(0, 3, 1, 2), photometric="rgb", planarconfig="separate", **options):
            np.testing.assert_array_equal(open_source(path, 3)[0].read(0, 5), COLOUR)


def test_jpeg(tmp_path: Path) -> None:
    flat = np.array([[250, 20, 90], [10, 200, 40], [0, 0, 255]], np.uint8)[:, None, None].repeat(40, 1).repeat(48, 2)
    images = [Image.fromarray(frame) for frame in flat]
    # As YCbCr with half the resolution of colour.
    images[0].save(tmp_path / "a.tif", save_all=True, append_images=images[1:], compression="jpeg", quality=95)
    # The last row is the encoder's.
    np.testing.assert_allclose(open_source(tmp_path / "a.tif", 3)[0].read(0, 3)[:, :39], flat[:, :39], atol=4)
    for tile in (None, (16, 16)):
        options = {"compression": "jpeg", "compressionargs": {"level": 95}, "tile": tile}
        for path in both(tmp_path, flat, photometric="rgb", **options):
            np.testing.assert_allclose(open_source(path, 3)[0].read(0, 3)[:, :32], flat[:, :32], atol=4)
    for path in both(tmp_path, SMOOTH, photometric="minisblack", compression="jpeg"):
        assert np.abs(open_source(path, 3)[0].read(0, 3)[..., 0].astype(int) - SMOOTH[:3]).mean() < 3


@pytest.mark.parametrize("kind", ["u2", "i2", "i4", "u4", "i1", "f2", "f4", "f8", "i8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_kind_of_value(tmp_path: Path, kind: str, order: str) -> None:
    floats = kind.startswith("f")
    frames = (GRAY / 255).astype(kind) if floats else (GRAY // 2).astype(kind)
    for path in both(tmp_path, frames, byteorder=order, photometric="minisblack", compression="zlib"):
        read = open_source(path, 1)[0].read(0, 5)
        assert read.dtype == np.dtype(kind)
        np.testing.assert_array_equal(read[..., 0], frames)
        clips = read_clips(path, 1, value_range=None if floats else (0, 127))[0, :, 0].numpy()
        np.testing.assert_allclose(clips, GRAY / 255 if floats else GRAY // 2 / 127, atol=5e-4)
        if not floats and kind != "u2":
            with pytest.raises(ValueError, match=r"(pages\.tif|images) should hold uint8.*value_range=\(low, high\)"):
                read_clips(path, 1)


def test_white_is_zero_palettes_single_bits_and_inks(tmp_path: Path) -> None:
    deep = GRAY.astype(np.uint16) * 257
    for frames, top in ((GRAY, 255), (deep, 65535)):
        for path in both(tmp_path, top - frames, photometric="miniswhite"):
            np.testing.assert_array_equal(open_source(path, 1)[0].read(0, 5)[..., 0], frames)
    for path in both(tmp_path, 1 - GRAY / np.float32(255), photometric="miniswhite"):
        np.testing.assert_allclose(open_source(path, 1)[0].read(0, 5)[..., 0], GRAY / 255, atol=1e-6)
    for path in both(tmp_path, GRAY > 99, photometric="minisblack"):
        np.testing.assert_array_equal(open_source(path, 1)[0].read(0, 5)[..., 0], (GRAY > 99) * np.uint8(255))
    colours = np.random.default_rng(2).integers(0, 256, (3, 256), dtype=np.uint16)
    for path in both(tmp_path, GRAY, photometric="palette", colormap=colours * 257):
        np.testing.assert_array_equal(open_source(path, 3)[0].read(0, 5), colours.T[GRAY])
    inks = np.concatenate([255 - COLOUR, np.zeros_like(COLOUR[..., :1])], 3)
    for path in both(tmp_path, inks, photometric="separated"):
        np.testing.assert_array_equal(open_source(path, 3)[0].read(0, 5), COLOUR)


def test_packed_numbers(tmp_path: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    try:
        imagecodecs.packints_encode(np.zeros(2, np.uint16), 12)
    except NotImplementedError:
        pytest.skip("imagecodecs older than 2026 reads packed numbers, and writes none")
    for path in both(tmp_path, GRAY.astype(np.uint16) * 16, photometric="minisblack", bitspersample=12):
        read = open_source(path, 1)[0].read(0, 5)[..., 0]
        np.testing.assert_allclose(read / 65535, GRAY * 16.0 / 4095, atol=1e-5)


def test_alpha_other_samples_and_orientation(tmp_path: Path) -> None:
    four = np.concatenate([COLOUR, GRAY[..., None]], 3)
    for kind, shown in (("unassalpha", four), ("assocalpha", COLOUR), ("unspecified", COLOUR)):
        for path in both(tmp_path, four, photometric="rgb", extrasamples=[kind]):
            np.testing.assert_array_equal(open_source(path, 3)[0].read(0, 5), shown)
    (stream,) = open_source(tmp_path / "pages.tif", 4)
    np.testing.assert_array_equal(stream.read(0, 5), four)
    for value, turned in (
        (2, GRAY[:, :, ::-1]), (3, GRAY[:, ::-1, ::-1]), (4, GRAY[:, ::-1]), (5, GRAY.swapaxes(1, 2)),
        (6, GRAY.swapaxes(1, 2)[:, :, ::-1]), (7, GRAY.swapaxes(1, 2)[:, ::-1, ::-1]),
        (8, GRAY.swapaxes(1, 2)[:, ::-1]),
    ):  # fmt: skip
        for path in both(tmp_path, GRAY, photometric="minisblack", extratags=[(274, 3, 1, value, True)]):
            (stream,) = open_source(path, 1)
            np.testing.assert_array_equal(stream.read(0, 5)[..., 0], turned)
            assert stream.size == turned.shape[1:]


def test_missing_values(tmp_path: Path) -> None:
    heights = GRAY / np.float32(255)
    heights[2, :4] = -9999
    tag = [(42113, 2, 0, "-9999", True)]
    for path in both(tmp_path, heights, photometric="minisblack", extratags=tag):
        with pytest.raises(ValueError, match=r"missing values \(nodata, -9999"):
            read_clips(path, 1)
    clips = read_clips(tmp_path / "pages.tif", 1, fill=0)
    np.testing.assert_allclose(clips[0, :, 0].numpy(), np.where(heights < 0, 0, heights), atol=1e-6)


STACK = np.random.default_rng(3).integers(0, 256, (5, 2, 40, 48), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_axes_of_microscopes(tmp_path: Path, kind: str) -> None:
    def write(name: str, array: np.ndarray, axes: str) -> Path:
        file = tmp_path / f"{name}{'.ome' if kind == 'ome' else ''}.tif"
        tifffile.imwrite(file, array, photometric="minisblack", metadata={"axes": axes}, **{kind: True})
        return file

    (stream,) = open_source(write("tcyx", STACK, "TCYX"), 2)
    assert (stream.num_frames, stream.channels, stream.size) == (5, 2, (40, 48))
    np.testing.assert_array_equal(stream.read(1, 2, 2), STACK[1:4:2].transpose(0, 2, 3, 1))
    with pytest.raises(ValueError, match=r"tcyx.* has 2 channel\(s\), from which 3 cannot be made"):
        read_clips(write("tcyx", STACK, "TCYX"), 3)
    (stream,) = open_source(write("tyx", GRAY, "TYX"), 1)
    np.testing.assert_array_equal(stream.read(0, 5)[..., 0], GRAY)
    depth = write("zyx", GRAY, "ZYX")
    with pytest.raises(ValueError, match=r"zyx.*has the axes ZYX of \(5, 40, 48\).*such as axes=TYX"):
        open_source(depth, 1)
    np.testing.assert_array_equal(open_source(depth, 1, ArrayOptions(axes="TYX"))[0].read(0, 5)[..., 0], GRAY)
    with pytest.raises(ValueError, match="axes TZYX"):
        open_source(write("tzyx", STACK, "TZYX"), 1)
    streams = open_source(tmp_path / f"tzyx{'.ome' if kind == 'ome' else ''}.tif", 1, ArrayOptions(axes="TBYX"))
    np.testing.assert_array_equal(streams[1].read(0, 5)[..., 0], STACK[:, 1])
    (stream,) = open_source(write("cyx", STACK[0], "CYX"), 2)
    assert (stream.num_frames, stream.channels) == (1, 2)
    if kind == "ome":
        (stream,) = open_source(write("ctyx", STACK, "CTYX"), 5)
        np.testing.assert_array_equal(stream.read(0, 2), STACK.transpose(1, 2, 3, 0))


def test_a_virtual_stack_of_imagej(tmp_path: Path) -> None:
    """Above 4 GB ImageJ writes one page and all frames behind it."""
    file = tmp_path / "big.tif"
    deep = (GRAY.astype(">u2") * 257).astype(">u2")
    tifffile.imwrite(file, deep[0], imagej=True, byteorder=">", photometric="minisblack", metadata={"axes": "YX"})
    with tifffile.TiffFile(file, mode="r+") as opened:
        page = opened.pages[0]
        page.tags[270].overwrite("ImageJ=1.53t\nimages=5\nframes=5\nhyperstack=true\n")
        # The pixels of all follow one another at the end.
        page.tags[273].overwrite(file.stat().st_size)
    file.write_bytes(file.read_bytes() + deep.tobytes())
    (stream,) = open_source(file, 1)
    assert stream.num_frames == 5
    np.testing.assert_array_equal(stream.read(1, 2, 2)[..., 0], deep[1:4:2])
    file.write_bytes(file.read_bytes()[:-4000])
    with pytest.raises(ValueError, match=r"big\.tif.*ImageJ header does not fit"):
        open_source(file, 1)


def test_pages_written_one_by_one_and_in_shapes(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as out:
        for frame in GRAY:
            out.write(frame)
    tifffile.imwrite(tmp_path / "b.tif", GRAY)
    tifffile.imwrite(tmp_path / "c.tif", COLOUR, photometric="rgb")
    for name, frames in (("a", GRAY[..., None]), ("b", GRAY[..., None]), ("c", COLOUR)):
        np.testing.assert_array_equal(open_source(tmp_path / f"{name}.tif", 3)[0].read(0, 5), frames)
    tifffile.imwrite(tmp_path / "d.tif", STACK)
    with pytest.raises(ValueError, match=r"d\.tif has the axes QQYX"):
        open_source(tmp_path / "d.tif", 1)
    assert open_source(tmp_path / "d.tif", 2, ArrayOptions(axes="TCYX"))[0].channels == 2


def test_thumbnails_are_no_frames(tmp_path: Path) -> None:
    for name, marked in (("marked", True), ("unmarked", False)):
        for first in (True, False):
            folder = tmp_path / f"{name}{first}"
            folder.mkdir()
            for number, frames in enumerate([GRAY[:1], GRAY[1:2], GRAY]):
                with tifffile.TiffWriter(folder / f"{number}.tif" if number < 2 else tmp_path / "stack.tif") as out:
                    small = [(frames[0, ::8, ::8], {"subfiletype": 1 if marked else 0})]
                    large = [(frame, {}) for frame in frames]
                    for page, options in small + large if first else large + small:
                        out.write(page, photometric="minisblack", metadata=None, **options)
            assert find_sources(folder) == [folder]
            np.testing.assert_array_equal(open_source(folder, 1)[0].read(0, 2)[..., 0], GRAY[:2])
            np.testing.assert_array_equal(open_source(tmp_path / "stack.tif", 1)[0].read(0, 5)[..., 0], GRAY)
    with tifffile.TiffWriter(tmp_path / "sub.tif") as out:
        out.write(GRAY[0], subifds=1, photometric="minisblack", metadata=None)
        out.write(GRAY[0, ::2, ::2], subfiletype=1, photometric="minisblack", metadata=None)
    np.testing.assert_array_equal(open_source(tmp_path / "sub.tif", 1)[0].read(0, 1)[0, ..., 0], GRAY[0])
    with tifffile.TiffWriter(tmp_path / "differ.tif") as out:
        for frame in (GRAY[0], GRAY[1, :20], GRAY[2]):
            out.write(frame, photometric="minisblack", metadata=None)
    with pytest.raises(ValueError, match=r"differ\.tif holds pages that differ"):
        open_source(tmp_path / "differ.tif", 1)


def test_files_that_a_header_names_stay_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "b.ome.tif", GRAY, metadata={"axes": "TYX"}, photometric="minisblack")
    ome = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:a"><Image ID="Image:0"><Pixels '
        'ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="48" SizeY="40" SizeC="1" SizeZ="1" SizeT="2">'
        '<TiffData FirstT="0"><UUID FileName="a.ome.tif">urn:uuid:a</UUID></TiffData>'
        '<TiffData FirstT="1"><UUID FileName="b.ome.tif">urn:uuid:b</UUID></TiffData></Pixels></Image></OME>'
    )
    tifffile.imwrite(tmp_path / "a.ome.tif", GRAY[0], description=ome, metadata=None, photometric="minisblack")
    opened: list[str] = []
    whole = builtins.open

    def watch(file: Any, *rest: Any, **more: Any) -> Any:
        opened.append(str(file))
        return whole(file, *rest, **more)

    monkeypatch.setattr(builtins, "open", watch)
    with pytest.raises(ValueError, match=r"a\.ome\.tif has the axes YX.*names other files, which are not opened"):
        open_source(tmp_path / "a.ome.tif", 1)
    np.testing.assert_array_equal(
        open_source(tmp_path / "a.ome.tif", 1, ArrayOptions("YX"))[0].read(0, 1)[0, ..., 0], GRAY[0]
    )
    assert not any("b.ome" in name for name in opened)


def test_large_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.tif"
    pages(file, GRAY[:1], photometric="minisblack", compression="zlib")
    content = bytearray(file.read_bytes())
    with tifffile.TiffFile(file) as opened:
        places = [page.tags[tag].valueoffset for page in opened.pages for tag in (256, 257, 278)]
    for place in places:
        struct.pack_into("<I", content, place, 100_000)
    file.write_bytes(bytes(content))
    with pytest.raises(FileTooLargeError, match=r"a\.tif: 1 frame.*100000x100000"):
        open_source(file, 1)
    (tmp_path / "images").mkdir()
    file.rename(tmp_path / "images" / "0.tif")
    with pytest.raises(ValueError, match=r"0\.tif: 1 frame.*100000x100000"):
        open_source(tmp_path / "images", 1)
    large = pages(tmp_path / "b.tif", np.zeros((3, 3000, 3000), np.uint8), photometric="minisblack", compression="zlib")
    monkeypatch.setenv("PLASM_READ_LIMIT", "0.08")
    (stream,) = open_source(large, 1)
    with pytest.raises(FileTooLargeError, match=r"b\.tif"):
        stream.read(0, 3)
    monkeypatch.setenv("PLASM_READ_LIMIT", "0.1")
    assert stream.read(0, 3).shape == (3, 3000, 3000, 1)


def test_a_jpeg_larger_than_its_tile(tmp_path: Path) -> None:
    pages(tmp_path / "a.tif", SMOOTH[:1], photometric="minisblack", compression="jpeg")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    place = content.index(b"\xff\xc0")
    struct.pack_into(">2H", content, place + 5, 65500, 65500)
    (tmp_path / "a.tif").write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"a\.tif, page 1 is damaged: .* holds a JPEG of 65500x65500"):
        open_source(tmp_path / "a.tif", 1)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "tile": (16, 16)}, {"compression": "lzw"}])
def test_damage_is_named(tmp_path: Path, options: dict[str, Any]) -> None:
    file = pages(tmp_path / "a.tif", GRAY, photometric="minisblack", **options)
    whole = file.read_bytes()
    for tenth in range(10):
        file.write_bytes(whole[: len(whole) * tenth // 10])
        with pytest.raises(ValueError, match=r"a\.tif"):
            open_source(file, 1)[0].read(0, 5)
    for place in range(4, len(whole), max(1, len(whole) // 60)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with named("a.tif"):
            open_source(file, 1)[0].read(0, 5)


def test_a_tiff_by_another_name(tmp_path: Path) -> None:
    file = pages(tmp_path / "a.tif", GRAY, photometric="minisblack").rename(tmp_path / "a.mp4")
    np.testing.assert_array_equal(FrameFormat(1)(open_source(file, 1)[0].read(0, 5), "a")[:, 0].numpy() * 255, GRAY)


def test_floats_with_and_without_alpha_in_a_folder(tmp_path: Path) -> None:
    four = np.concatenate([COLOUR, np.full_like(COLOUR[..., :1], 255)], 3) / np.float32(255)
    pages(tmp_path / "0.tif", four[:1], photometric="rgb", extrasamples=["unassalpha"])
    pages(tmp_path / "1.tif", four[1:2, ..., :3], photometric="rgb")
    pages(tmp_path / "2.tif", four[2:3, ..., 0], photometric="minisblack")
    read = open_source(tmp_path, 3)[0].read(0, 3)
    np.testing.assert_array_equal(read[:2], four[:2])
    np.testing.assert_array_equal(read[2, ..., 1], four[2, ..., 0])


@pytest.mark.parametrize("axes", ["ZYX", "TZYX", "ZCYX", "CZYX", "QQYX", "TZYXS"])
def test_the_axes_that_a_refusal_names_are_taken(tmp_path: Path, axes: str) -> None:
    lengths = {"T": 4, "Z": 3, "C": 2, "Q": 5, "Y": 40, "X": 48, "S": 3}
    values = np.zeros([lengths[letter] for letter in axes], np.uint8)
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, values, metadata={"axes": axes}, photometric="rgb" if "S" in axes else "minisblack")
    with pytest.raises(ValueError, match=r"such as axes=[A-Z]+$") as refused:
        read_clips(file, 3)
    streams = open_source(file, 3, ArrayOptions(axes=str(refused.value).rpartition("=")[2]))
    assert sum(stream.num_frames for stream in streams) * streams[0].channels * 40 * 48 == values.size


def test_more_axes_than_a_clip_has(tmp_path: Path) -> None:
    file = tmp_path / "a.ome.tif"
    tifffile.imwrite(file, np.zeros((4, 3, 2, 40, 48, 3), np.uint8), metadata={"axes": "TZCYXS"}, photometric="rgb")
    with pytest.raises(ValueError, match=r"more axes than T frames.*save fewer in a file"):
        read_clips(file, 3)


def test_missing_values_in_a_folder(tmp_path: Path) -> None:
    frames = (GRAY / 255).astype(np.float32)
    frames[:, :3] = np.nan
    file, folder = both(tmp_path, frames)
    for each in (file, folder, folder / "0.tif"):
        with pytest.raises(ValueError, match="fill=0"):
            read_clips(each, 1)
        filled = np.nan_to_num(frames)[: 1 if each.suffix and each != file else None]
        assert np.array_equal(read_clips(each, 1, fill=0)[0, :, 0], filled)


def test_a_folder_of_stacks_is_no_clip(tmp_path: Path) -> None:
    pages(tmp_path / "a.tif", GRAY)
    with pytest.raises(ValueError, match=r"no images of one clip.*: give one, such as .*a\.tif$"):
        open_source(tmp_path, 1)
