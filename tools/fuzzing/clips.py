"""Malformed clips: arrays of every type and shape, images and videos that are cut, mutated or not what they say."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
from PIL import Image

from plasm.data import FrameFormat, open_source, read_clips, read_streams

from .case import Case, Fuzzer

_TYPES = ("?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8", "S3", "U3", "M8[s]", "V4")
_READABLE = {"?": 1, "u1": 255, "u2": 65535, "f2": 1, "f4": 1, "f8": 1}


# Ending, codec, frame format and options: every container that is common, with and without reordered frames.
_VIDEOS: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    (".mp4", "mpeg4", "yuv420p", {}), (".avi", "mpeg4", "yuv420p", {}), (".mkv", "mpeg4", "yuv420p", {}),
    (".mov", "mjpeg", "yuvj420p", {}), (".b.mp4", "libx264", "yuv420p", {"bf": "2"}),
    (".b.avi", "libx264", "yuv420p", {"bf": "2"}), (".b.mkv", "libx264", "yuv420p", {"bf": "2"}),
    (".b.ts", "libx264", "yuv420p", {"bf": "2"}), (".mpg", "mpeg2video", "yuv420p", {"bf": "2", "b": "4M"}),
    (".webm", "libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}),
)  # fmt: skip
_IMAGES = {".png": "PNG", ".jpg": "JPEG", ".gif": "GIF", ".tif": "TIFF", ".webp": "WEBP", ".ppm": "PPM", ".bmp": "BMP"}


def prepare(folder: Path) -> dict[str, bytes]:
    """Whole videos and images, whose frames differ in brightness."""
    frames = [np.full((32, 48, 3), 10 * number, np.uint8) for number in range(20)]
    whole = {}
    for ending, codec, pixels, options in _VIDEOS:
        file = folder / f"whole{ending}"
        with av.open(str(file), "w") as container:
            stream = container.add_stream(codec, rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt, stream.gop_size = 48, 32, pixels, 6
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        whole[ending] = file.read_bytes()
    images = [Image.fromarray(frame) for frame in frames]
    for ending in (".gif", ".tif", ".webp"):
        content = io.BytesIO()
        images[0].save(content, _IMAGES[ending], save_all=True, append_images=images[1:], duration=100, lossless=True)
        whole[ending] = content.getvalue()
    return whole


def _finite_in_range(clips: Any) -> bool:
    """Whatever was read has five axes, no empty one, and values in [0, 1]."""
    return clips.ndim == 5 and clips.numel() > 0 and bool(((clips >= 0) & (clips <= 1)).all())


def _array(numbers: np.random.Generator, folder: Path) -> Case:
    """An array of any type and shape: right if its values come out as they are, scaled by their type."""
    kind = str(numbers.choice(_TYPES))
    shape = [int(side) for side in numbers.choice([0, 1, 2, 3, 4, 5, 8, 9], size=int(numbers.integers(0, 7)))]
    if numbers.random() < 0.5:
        # One that can be read, of a type that may not be.
        kind = str(numbers.choice(list(_READABLE))) if numbers.random() < 0.7 else kind
        count, side, channels = int(numbers.integers(1, 6)), int(numbers.integers(5, 9)), int(numbers.choice([1, 3]))
        layouts = [(count, side, side), (count, channels, side, side), (count, side, side, channels)]
        layouts += [(2, count + 4, channels, side, side), (2, count + 4, side, side, channels)]
        shape = list(layouts[int(numbers.integers(len(layouts)))])
    content = numbers.random(shape) if kind[0] == "f" else numbers.integers(0, 200, shape)
    array = np.asarray(content).astype(kind if kind[0] != "V" else "u4").astype(kind if kind[0] != "V" else "u4")
    array = array.view("V4") if kind == "V4" and array.ndim else array
    title = "array of any type and shape"
    if kind[0] == "f" and array.size and numbers.random() < 0.4:
        array.reshape(-1)[int(numbers.integers(array.size))] = numbers.choice(
            [np.nan, np.inf, -np.inf, -0.5, 2.0, 255.0]
        )
        return _saved(numbers, folder, array, "array with a value out of range", None)
    if kind not in _READABLE:
        return _saved(numbers, folder, array, title, None)
    expected = np.sort(array.astype(np.float64).ravel() / _READABLE[kind])

    def right(clips: Any) -> bool:
        # In one or three equal channels, whatever was made of them: no other values than the array's.
        return _finite_in_range(clips) and np.allclose(np.sort(clips.double().numpy().ravel()), expected, atol=1e-3)

    return _saved(numbers, folder, array, title, right)


def _saved(
    numbers: np.random.Generator, folder: Path, array: np.ndarray, title: str, right: Callable[[Any], bool] | None
) -> Case:
    file = folder / ("a.npy" if numbers.random() < 0.6 else "a.npz")
    if file.suffix == ".npy":
        np.save(file, array)
    elif numbers.random() < 0.5:
        np.savez(file, array)
    else:
        np.savez_compressed(file, array)
    # The channels that the array has, so that nothing has to be converted.
    channels = next((side for side in (*array.shape[-3:-2], *array.shape[-1:]) if side in (1, 2, 3, 4)), 1)
    channels = 1 if array.ndim == 3 else channels
    return Case(title, lambda: read_clips(file, channels), right, file.name)


def _npy_header(numbers: np.random.Generator, folder: Path) -> Case:
    """A header that promises other than what follows."""
    sides = [int(side) for side in numbers.integers(0, 1 << int(numbers.integers(1, 62)), size=3)]
    shape, kind = (
        numbers.choice([f"({sides[0]}, {sides[1]}, {sides[2]})", "(9, -8, 8)", "(9,)", "x", "(1e9, 8, 8)"]),
        "|u1",
    )
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    stated = len(header) if numbers.random() < 0.7 else int(numbers.integers(0, 65536))
    version = bytes(numbers.choice([1, 2, 3, 9], size=2, p=[0.7, 0.1, 0.1, 0.1]).astype(np.uint8))
    content = b"\x93NUMPY" + version + struct.pack("<H", stated) + header + numbers.bytes(int(numbers.integers(0, 600)))
    file = folder / "a.npy"
    if numbers.random() < 0.3:
        file = folder / "a.npz"
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a.npy", content)
    else:
        file.write_bytes(content)
    return Case("array with another header", lambda: read_clips(file, 1), None, file.name)


def _array_bytes(numbers: np.random.Generator, folder: Path) -> Case:
    """An array's file that is cut or random."""
    saved = io.BytesIO()
    ending = str(numbers.choice([".npy", ".npz"]))
    (np.save if ending == ".npy" else np.savez)(saved, numbers.integers(0, 255, (12, 8, 8), dtype=np.uint8))
    content = saved.getvalue()
    title = str(numbers.choice(["cut", "random", "empty"]))
    content = {"cut": content[: numbers.integers(1, len(content))], "random": numbers.bytes(500), "empty": b""}[title]
    (folder / f"a{ending}").write_bytes(content)
    return Case(f"array file, {title}", lambda: read_clips(folder / f"a{ending}", 1), None, f"a{ending}")


def _video(numbers: np.random.Generator, folder: Path, whole: dict[str, bytes]) -> Case:
    """A video cut at a tenth of its length, or random: what is read is of the frames that play, in order."""
    ending = str(numbers.choice(list(whole)))
    content, tenth = whole[ending], int(numbers.integers(0, 11))
    file = folder / f"v{ending}"
    if numbers.random() < 0.15:
        file.write_bytes(numbers.bytes(int(numbers.integers(0, 3000))))
        return Case("video, random bytes", lambda: open_source(file, 3)[0].read(0, 1), None, file.name)
    file.write_bytes(content[: len(content) * tenth // 10])

    def read() -> np.ndarray:
        stream = open_source(file, 3)[0]
        numbered = [stream.read(number, 1) for number in range(stream.num_frames)]
        at_once = stream.read(0, stream.num_frames)
        return at_once if np.array_equal(np.concatenate(numbered), at_once) else np.empty((0, 1, 1, 1))

    def right(frames: np.ndarray) -> bool:
        levels = frames[..., :3].astype(float).mean((1, 2, 3))
        played = np.round(levels / 10)
        # A cut at the end may lack frames that are stored after those that play after them.
        return (
            0 < len(levels) <= 20
            and np.allclose(levels, 10 * played, atol=4)
            and bool((np.diff(played) > 0).all())
            and np.array_equal(played[:-4], np.arange(len(played))[:-4])
            and (tenth < 10 or len(levels) == 20)
        )

    return Case("video, whole" if tenth == 10 else f"video, {tenth} tenths", read, right, file.name)


def _pause(numbers: np.random.Generator, folder: Path, whole: dict[str, bytes]) -> Case:
    """A video that lacks a group of pictures in its middle, as one whose recorder paused: the frames that are there."""
    ending = str(numbers.choice([name for name, *_ in _VIDEOS if not name.endswith((".avi", ".mpg", ".ts"))]))
    (folder / f"whole{ending}").write_bytes(whole[ending])
    file = folder / f"v{ending}"
    with av.open(str(folder / f"whole{ending}")) as source, av.open(str(file), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        keys = [number for number, packet in enumerate(packets) if packet.is_keyframe] + [len(packets)]
        group = int(numbers.integers(1, len(keys) - 1)) if len(keys) > 2 else 0
        gone = range(keys[group], keys[group + 1]) if group else range(0)
        for number, packet in enumerate(packets):
            if number not in gone:
                packet.stream = stream
                target.mux(packet)

    def read() -> np.ndarray:
        stream = open_source(file, 3)[0]
        return stream.read(0, stream.num_frames)

    def right(frames: np.ndarray) -> bool:
        levels = frames[..., :3].astype(float).mean((1, 2, 3))
        played = np.round(levels / 10)
        return (
            len(levels) == 20 - len(gone) and np.allclose(levels, 10 * played, atol=4) and (np.diff(played) > 0).all()
        )

    return Case("video, a pause", read, right, file.name)


def _image(numbers: np.random.Generator, folder: Path) -> Case:
    """A folder of images of which one is cut, random, of another kind, or not one frame; hidden ones are left out."""
    ending = str(numbers.choice(list(_IMAGES)))
    pages = [np.full((16, 24, 3), 40 * number, np.uint8) for number in range(4)]
    for number, page in enumerate(pages):
        Image.fromarray(page).save(folder / f"{number}{ending}", _IMAGES[ending])
    (folder / f"._0{ending}").write_bytes(b"no image")
    file = folder / f"1{ending}"
    title = str(numbers.choice(["whole", "cut", "random", "empty", "of another size", "gray", "of 16 bits"]))
    content = file.read_bytes()
    if title == "cut":
        file.write_bytes(content[: int(numbers.integers(1, max(2, len(content) * 3 // 4)))])
    elif title in ("random", "empty"):
        file.write_bytes(b"" if title == "empty" else numbers.bytes(300))
    elif title == "of another size":
        Image.fromarray(pages[1][:-2]).save(file, _IMAGES[ending])
    elif title != "whole":
        # Under any ending: the content says what a file is.
        gray = pages[1][..., 0]
        Image.fromarray(gray if title == "gray" else gray.astype(np.uint16) * 257).save(file, "PNG")

    def right(frames: np.ndarray) -> bool:
        levels = frames[..., :3].astype(float).mean((1, 2, 3))
        return title in ("whole", "gray") and np.allclose(levels, [0, 40, 80, 120], atol=4)

    return Case(f"image in a folder, {title}", lambda: open_source(folder, 3)[0].read(0, 4), right, file.name)


def _h5(numbers: np.random.Generator, folder: Path) -> Case:
    """An HDF5 file that is whole, cut or random, or holds what is no array of frames."""
    file = folder / f"a{numbers.choice(['.h5', '.nc', '.hkl'])}"
    frames = numbers.integers(0, 256, (5, 8, 9), dtype=np.uint8)
    title = str(numbers.choice(["whole", "two arrays", "no array", "integers", "cut", "random"]))
    with h5py.File(file, "w") as content:
        if title != "no array":
            content["frames"] = frames.astype(np.int64) if title == "integers" else frames
        content["two" if title == "two arrays" else "time"] = frames if title == "two arrays" else np.arange(5)
    if title in ("cut", "random"):
        whole = file.read_bytes()
        file.write_bytes(whole[: int(numbers.integers(0, len(whole)))] if title == "cut" else numbers.bytes(900))
    expected = frames[None, :, None] / 255

    def right(clips: Any) -> bool:
        return title == "whole" and np.allclose(clips.numpy(), expected, atol=1e-6)

    return Case(f"HDF5, {title}", lambda: read_clips(file, 1), right, file.name)


def _playlist(numbers: np.random.Generator, folder: Path, whole: dict[str, bytes]) -> Case:
    """A text that names other files and addresses, under the name of a video or picture: nothing of them is read."""
    other = folder / "private.mp4"
    other.write_bytes(whole[".mp4"])
    address = f"http://127.0.0.1:{int(numbers.integers(1025, 65000))}/a.ts"
    texts = {
        "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nprivate.mp4\n#EXT-X-ENDLIST\n",
        "HLS of an address": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n",
        "concat script": f"ffconcat version 1.0\nfile private.mp4\nfile '{other}'\n",
        "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        "DASH": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{address}</BaseURL></MPD>',
        "SVG": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{address}"/></svg>',
        "text": "Dear diary, " * 300,
    }
    title = str(numbers.choice(list(texts)))
    file = (
        folder / f"v{numbers.choice(['.mp4', '.avi', '.mkv', '.gif', '.jpg', '.png', '.m3u8', '.txt', '.ts', '.sdp'])}"
    )
    file.write_text(texts[title], encoding="utf-8")
    return Case(f"playlist, {title}", lambda: open_source(file, 3)[0].read(0, 1), None, file.name)


def _elsewhere(numbers: np.random.Generator, folder: Path) -> Case:
    """An HDF5 file whose values lie in another file."""
    frames = numbers.integers(0, 256, (5, 8, 9), dtype=np.uint8)
    private = folder / "private.bin"
    private.write_bytes(frames.tobytes())
    with h5py.File(folder / "private.h5", "w") as other:
        other["frames"] = frames
    file = folder / f"a{numbers.choice(['.h5', '.hdf5', '.nc', '.hkl'])}"
    title = str(numbers.choice(["external", "virtual", "link"]))
    with h5py.File(file, "w") as content:
        if title == "external":
            content.create_dataset("frames", frames.shape, "u1", external=[(str(private), 0, frames.nbytes)])
        elif title == "virtual":
            layout = h5py.VirtualLayout(frames.shape, "u1")
            layout[:] = h5py.VirtualSource(str(folder / "private.h5"), "frames", frames.shape)
            content.create_virtual_dataset("frames", layout)
        else:
            content["frames"] = h5py.ExternalLink(str(folder / "private.h5"), "frames")
    return Case(f"HDF5, {title}", lambda: read_clips(file, 1), None, file.name)


def _bomb(numbers: np.random.Generator, folder: Path) -> Case:
    """A small file that declares more than a machine holds."""
    title = str(
        numbers.choice(["GIF", "PNG", "TIFF", "npz", "npy", "HDF5 of many bytes", "HDF5 of many frames", "Y4M"])
    )
    side, channels, name = int(numbers.integers(20_000, 30_000)), 1, f"a.{title.lower()[:4].strip()}"
    if title == "GIF":
        block = b"\x2c" + struct.pack("<4H", 0, 0, side, side) + b"\x00\x02\x02\x44\x01\x00"
        header = b"GIF89a" + struct.pack("<2H", side, side) + b"\x80\x00\x00\x00\x00\x00\xff\xff\xff"
        content, channels = header + block * 20 + b";", 3
    elif title == "PNG":
        parts = (
            (b"IHDR", struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(bytes(999))),
            (b"IEND", b""),
        )
        chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
        content, channels = b"\x89PNG\r\n\x1a\n" + b"".join(chunks), 3
    elif title == "TIFF":
        tags = ((256, side), (257, side), (258, 8), (259, 32773), (262, 1), (273, 8), (277, 1), (278, side), (279, 2))
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        offset = struct.pack("<I", 10)
        content = b"II*\0" + offset + b"\x81\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
        name = "a.tif"
    elif title == "npz":
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
            member.write(_header_of((20, side, side)))
            for _ in range(40):
                member.write(bytes(10_000_000))
        content = packed.getvalue()
    elif title == "npy":
        content = _header_of((20, side, side)) + bytes(1000)
    elif title == "Y4M":
        content, channels = f"YUV4MPEG2 W{side * 3} H{side * 3} F25:1 C444\nFRAME\n".encode() + bytes(500), 3
    else:
        shape = (20, side, side) if title == "HDF5 of many bytes" else (10**9, 8, 8)
        with h5py.File(folder / "a.h5", "w") as target:
            target.create_dataset("frames", shape, "u1", chunks=(1, min(shape[1], 64), min(shape[2], 64)))
        content, name = (folder / "a.h5").read_bytes(), "a.h5"
    file = folder / name
    file.write_bytes(content)
    small = FrameFormat(channels, (16, 16), "stretch")

    def read() -> Any:
        return read_streams(open_source(file, channels), small, 4)

    # Of frames that can be read one by one, some may come out.
    right = (lambda clips: clips.shape[-2:] == (16, 16)) if title.startswith("HDF5") else None
    return Case(f"bomb, {title}", read, right, file.name)


def _header_of(shape: tuple[int, ...]) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def create(numbers: np.random.Generator, number: int, folder: Path, whole: dict[str, bytes]) -> Case:
    """Make one malformed source."""
    if number % 2:
        return (_pause if number % 16 == 1 else _playlist if number % 8 == 3 else _video)(numbers, folder, whole)
    kinds = (_array, _image, _npy_header, _array, _image, _array_bytes, _h5, _bomb, _elsewhere)
    return kinds[number // 2 % len(kinds)](numbers, folder)


FUZZER = Fuzzer(prepare, create)
