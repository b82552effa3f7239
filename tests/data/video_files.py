"""Small files in the formats that data sets come in, written for tests."""

import struct
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import h5py
import numpy as np
from PIL import Image


def frames(count: int, height: int = 24, width: int = 32, first: int = 0, channels: int = 3) -> np.ndarray:
    """Plain frames, each with a brightness of its own, which no lossy codec confuses: (T, H, W, K) uint8."""
    levels = (np.arange(first, first + count) * 8 % 256).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, channels)).copy()


def write_video(file: Path, pages: Iterable[np.ndarray], codec: str = "mpeg4", rate: int = 25, gop: int = 5) -> Path:
    """Encode (H, W, 3) frames."""
    pages = list(pages)
    file.parent.mkdir(parents=True, exist_ok=True)
    if codec == "gif":  # FFmpeg's own palette would round the brightness
        images = [Image.fromarray(page) for page in pages]
        images[0].save(file, save_all=True, append_images=images[1:], duration=40)
        return file
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = pages[0].shape[:2]
        stream.pix_fmt = {"mjpeg": "yuvj420p", "ffv1": "gray", "png": "rgb24"}.get(codec, "yuv420p")
        stream.gop_size = gop
        if codec == "mpeg4":
            stream.bit_rate = 4_000_000
        for page in pages:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(page), format="rgb24")))
        container.mux(stream.encode())
    return file


def levels(array: np.ndarray) -> np.ndarray:
    """Which frames of ``frames`` these are."""
    return (array[..., :3].mean((1, 2, 3)) / 8).round().astype(int)


def noise(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frames of which each differs from all others: a patch moves over a texture and changes its level."""
    base = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    pages = [base.repeat(8, 0).repeat(8, 1) for _ in range(count)]
    for number, page in enumerate(pages):
        page[(2 * number) % (height - 8) :, (3 * number) % (width - 8) :][:8, :8] = number * 5 % 256
    return pages


def write_packets(
    file: Path,
    pages: Iterable[np.ndarray],
    codec: str,
    options: dict[str, str] | None = None,
    *,
    pixels: str = "yuv420p",
    gop: int = 12,
    times: Sequence[int] | None = None,
    without: Container[int] = (),
) -> Path:
    """Encode (H, W, 3) frames.

    Args:
        file: Its ending chooses the container.
        pages: The frames.
        codec: FFmpeg's name of it.
        options: Of the encoder.
        pixels: FFmpeg's name of what is encoded.
        gop: Frames from one keyframe to the next, at most.
        times: Of the frames, in ms; 25 a second by default.
        without: Packets that get lost.
    """
    pages = list(pages)
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = pages[0].shape[:2]
        stream.pix_fmt, stream.gop_size = pixels, gop
        if times:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        packets = []
        for number, page in enumerate(pages):
            frame = av.VideoFrame.from_ndarray(page, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            packets += stream.encode(frame)
        for number, packet in enumerate(packets + stream.encode()):
            if number not in without:
                container.mux(packet)
    return file


def set_matrix(file: Path, matrix: Sequence[int]) -> None:
    """Write a display matrix into an MP4 or MOV file, as phones do: a, b, c, d of x' = ax + cy, y' = bx + dy."""
    a, b, c, d = (65536 * value for value in matrix)
    content = bytearray(file.read_bytes())
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    file.write_bytes(content)


def encode_image(page: np.ndarray, codec: str = "png", pixels: str = "rgb24") -> bytes:
    """Encode one image."""
    context = av.CodecContext.create(codec, "w")
    context.height, context.width = page.shape[:2]
    context.pix_fmt = "yuvj444p" if codec == "mjpeg" else pixels
    context.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(page), format=pixels)
    packets = context.encode(frame.reformat(format=context.pix_fmt)) + context.encode(None)
    return b"".join(bytes(packet) for packet in packets)


def write_images(folder: Path, pages: Iterable[np.ndarray], name: str = "{:d}.png") -> Path:
    """A folder of images; their numbers are not padded unless ``name`` says so."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, page in enumerate(pages):
        file = folder / name.format(number)
        file.write_bytes(encode_image(page, "png" if file.suffix == ".png" else "mjpeg"))
    return folder


def write_seq(file: Path, pages: Iterable[np.ndarray], gap: int = 8) -> Path:
    """A Norpix .seq file of JPEG images, as those of Caltech Pedestrian."""
    pages = list(pages)
    file.parent.mkdir(parents=True, exist_ok=True)
    height, width = pages[0].shape[:2] if pages else (0, 0)
    header = struct.pack("<I", 0xFEED) + "Norpix seq".encode("utf-16-le").ljust(24, b"\0")
    header += struct.pack("<2i", 3, 1024) + b"\0" * 512
    header += struct.pack("<6I", width, height, 24, 8, width * height * 3, 201)
    header += struct.pack("<3Id", len(pages), 0, 0, 30.0)
    content = header.ljust(1024, b"\0")
    for page in pages:
        image = encode_image(page, "mjpeg")
        content += struct.pack("<I", len(image) + 4) + image + b"\0" * gap
    file.write_bytes(content)
    return file


def write_hickle(file: Path, value: np.ndarray | list[str], version: int = 2) -> Path:
    """What hickle writes for an array or a list of strings: the layout is its version's."""
    file.parent.mkdir(parents=True, exist_ok=True)
    is_array = isinstance(value, np.ndarray)
    kind = b"ndarray" if is_array else b"list"
    with h5py.File(file, "w") as content:
        if version == 1:
            content["data"] = value
            content["type"] = [kind]
        elif is_array:
            content["data_0" if version == 2 else "data"] = value
            item = content["data_0" if version == 2 else "data"]
            item.attrs["type" if version == 2 else "base_type"] = [kind] if version == 2 else kind
        else:
            group = content.create_group("data_0" if version == 2 else "data")
            group.attrs["type" if version == 2 else "base_type"] = [kind] if version == 2 else kind
            for number, text in enumerate(value):
                data = [text.encode()] if version == 2 else np.frombuffer(text.encode(), np.uint8)
                group[f"data_{number}"] = data
                group[f"data_{number}"].attrs["type" if version == 2 else "base_type"] = b"str"
    return file


def write_kth(root: Path, videos: dict[str, int]) -> None:
    """KTH's tree: AVI files in folders by action, and 00sequences.txt with all frames of each in one range."""
    for name, count in videos.items():
        levels = np.arange(count, dtype=np.uint8) * 4
        pages = np.broadcast_to(levels[:, None, None, None], (count, 120, 160, 3))
        write_video(root / name.split("_")[1] / f"{name}_uncomp.avi", pages)
    lines = [f"{name}\t\tframes\t1-{count}" for name, count in videos.items()]
    (root / "00sequences.txt").write_text("Frames:\n\n" + "\n".join(lines) + "\n")


def dates(first: str, days: int) -> list[bytes]:
    """Half hours as TaxiBJ names them."""
    return [
        f"{str(np.datetime64(first) + day).replace('-', '')}{slot:02d}".encode()
        for day in range(days)
        for slot in range(1, 49)
    ]


def write_year(file: Path, rows: list[bytes], level: float = 0.0) -> np.ndarray:
    """A file with the original's keys: date, and data (n, 2, 32, 32) whose values tell the row."""
    data = np.zeros((len(rows), 2, 32, 32)) + level + np.arange(len(rows))[:, None, None, None]
    data[:, 1] *= 0.5
    with h5py.File(file, "w") as content:
        content["date"] = np.array(rows)
        content["data"] = data
    return data


def write_taxibj(root: Path) -> None:
    """2013: 3 days, one cut; 2014: 40 days with a gap of one day; 2016: 28 days and a bit, of greater flows."""
    write_year(root / "BJ13_M32x32_T30_InOut.h5", dates("2013-07-01", 3)[:-1])
    rows = dates("2014-03-01", 40)
    write_year(root / "BJ14_M32x32_T30_InOut.h5", rows[: 5 * 48] + rows[6 * 48 :])
    write_year(root / "BJ16_M32x32_T30_InOut.h5", dates("2016-03-01", 28) + dates("2016-04-01", 1)[:7], 3000)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Damage may go unnoticed; where it does not, the error is ours and names the file."""
    try:
        yield
    except ValueError as error:
        if name not in str(error):
            raise AssertionError(f"{name} is not named") from error
