import re
import socket
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps
from video_files import encode_image, noise, write_video

from plasm.data.decoding import decode_image, open_video, to_array
from plasm.data.limits import FileTooLargeError
from plasm.data.sources import open_source
from plasm.data.video import VideoStream


def create_frame(bits: int, sampling: str, width: int, height: int) -> tuple[av.VideoFrame, np.ndarray]:
    """A smooth frame in YUV, and what ITU-R BT.601 makes of it: (H, W, 3) in [0, 1]."""
    name = f"yuv{sampling}p" + (f"{bits}le" if bits > 8 else "")
    frame = av.VideoFrame(width, height, name)
    kind, scale = (np.uint8 if bits == 8 else np.uint16), 2.0 ** (bits - 8)
    every_x, every_y = {"420": (2, 2), "422": (2, 1), "444": (1, 1)}[sampling]
    y, x = np.mgrid[:height, :width]
    planes = [40 + x + y, 118 + x // every_x * every_x * 0.25, 122 + y // every_y * every_y * 0.25]
    stored = []
    for number, (plane, values) in enumerate(zip(frame.planes, planes, strict=True)):
        values = np.round(values * scale)
        part = values[:: every_y if number else 1, :: every_x if number else 1].astype(kind)
        content = np.zeros((plane.height, plane.line_size // part.itemsize), kind)
        content[:, : part.shape[1]] = part
        plane.update(content.tobytes())
        stored.append(values / scale)
    luma, blue, red = (stored[0] - 16) / 219, (stored[1] - 128) / 224, (stored[2] - 128) / 224
    colour = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], -1)
    return frame, np.clip(colour, 0, 1)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("sampling", ["420", "422", "444"])
@pytest.mark.parametrize("size", [(64, 48), (97, 65), (33, 24), (32, 25), (7, 5), (1, 1)])
def test_colours_at_any_size_and_depth(bits: int, sampling: str, size: tuple[int, int]) -> None:
    frame, expected = create_frame(bits, sampling, *size)
    pixels = to_array(frame, gray=False)
    assert pixels.dtype == (np.uint8 if bits == 8 else np.uint16)
    # FFmpeg interpolates between the samples of chroma, which differ by up to a level here.
    difference = 255 * np.abs(pixels / np.iinfo(pixels.dtype).max - expected)
    assert difference.max() < 4
    assert difference.mean() < 2
    gray = to_array(frame, gray=True)
    assert gray.shape == (size[1], size[0], 1)


def test_deep_colour_with_alpha_at_odd_widths() -> None:
    page = np.full((5, 7, 3), (200, 100, 50), np.uint8)
    frame = av.VideoFrame.from_ndarray(page, format="rgb24").reformat(format="yuva444p10le")
    pixels = to_array(frame, gray=False)
    assert pixels.shape == (5, 7, 4)
    assert np.abs(pixels[..., :3] / 257.0 - page).max() < 3


def test_an_image_that_is_cut_is_damaged() -> None:
    content = encode_image(noise(1)[0], "mjpeg")
    assert decode_image(BytesIO(content), "a.jpg", False).shape == (48, 64, 3)
    for missing in (1, 2, 20, len(content) // 2):
        with pytest.raises(ValueError, match=r"a\.jpg is cut off"):
            decode_image(BytesIO(content[:-missing]), "a.jpg", False)
    assert decode_image(BytesIO(content + b"what cameras append"), "a.jpg", False).shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("ending", "options"),
    [
        ("png", {}), ("jpeg", {"quality": 90}), ("jpeg", {"progressive": True}), ("webp", {}), ("bmp", {}), ("ppm", {}),
        ("jpeg2000", {}),
    ],
)  # fmt: skip
def test_every_kind_of_image_that_is_cut_is_refused(ending: str, options: dict[str, Any]) -> None:
    content = BytesIO()
    Image.fromarray(noise(1)[0]).save(content, ending, **options)
    whole = content.getvalue()
    assert decode_image(BytesIO(whole), "a.img", False).shape == (48, 64, 3)
    for kept in (0.98, 0.5, 0.1):
        with pytest.raises(ValueError, match=r"a\.img (is cut off|is damaged|cannot be decoded)"):
            decode_image(BytesIO(whole[: int(kept * len(whole))]), "a.img", False)


STILLS = [
    ("png", "RGB", {}), ("png", "L", {}), ("png", "RGBA", {}), ("png", "P", {}), ("png", "1", {}), ("png", "I;16", {}),
    ("jpeg", "RGB", {}), ("jpeg", "L", {}), ("jpeg", "RGB", {"progressive": True}), ("jpeg", "CMYK", {}),
    ("webp", "RGB", {}), ("webp", "RGBA", {}), ("webp", "RGB", {"lossless": True}), ("bmp", "RGB", {}),
    ("bmp", "P", {}), ("ppm", "RGB", {}), ("ppm", "L", {}), ("ppm", "1", {}), ("jpeg2000", "RGB", {}),
    ("jpeg2000", "L", {}),
]  # fmt: skip


@pytest.mark.parametrize(("ending", "mode", "options"), STILLS)
def test_a_still_image_is_decoded_once_as_a_container_of_it_would_be(
    ending: str, mode: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, content = Image.fromarray(noise(1)[0]), BytesIO()
    image = (
        Image.fromarray(np.arange(3072, dtype=np.uint16).reshape(48, 64) * 21)
        if mode == "I;16"
        else image.convert(mode)
    )
    image.save(content, ending, **options)
    with open_video(content, "a.img") as (container, stream):
        expected = to_array(next(container.decode(stream)), False)
    monkeypatch.setattr(av, "open", lambda *_, **__: pytest.fail("it is opened as a film, which decodes it to look"))
    np.testing.assert_array_equal(decode_image(content, "a.img", False), expected)


def still_of(kind: str, side: int) -> bytes:
    """The first bytes of an image of side^2 pixels."""
    if kind == "png":
        header = struct.pack(">4s2I5B", b"IHDR", side, side, 8, 2, 0, 0, 0)
        chunks = [(13, header), (0, b"IEND")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", n) + part + struct.pack(">I", zlib.crc32(part)) for n, part in chunks
        )
    if kind == "lossless webp":
        chunk = b"VP8L" + struct.pack("<IBI", 6, 0x2F, side - 1 | side - 1 << 14) + b"\0"
    else:
        chunk = b"VP8 " + struct.pack("<I", 12) + bytes([0x10, 0, 0, 0x9D, 1, 0x2A]) + struct.pack("<2H2x", side, side)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


@pytest.mark.parametrize("kind", ["png", "lossless webp", "lossy webp"])
def test_a_giant_picture_is_refused_by_its_header(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLASM_READ_LIMIT", "1")
    for opens in ("open", "Packet"):
        monkeypatch.setattr(av, opens, lambda *_, **__: pytest.fail("it is decoded"))
    with pytest.raises(FileTooLargeError, match=r"a\.img: a frame of 12000x12000 would take 3\.22 GiB"):
        decode_image(BytesIO(still_of(kind, 12_000)), "a.img", False)


@pytest.mark.parametrize(
    ("ending", "options"),
    [
        ("png", {}),
        ("jpeg", {}),
        ("webp", {}),
        ("bmp", {}),
        ("ppm", {}),
        ("jpeg2000", {}),
        ("jpeg2000", {"no_jp2": True}),
    ],
)
def test_a_picture_of_any_kind_is_refused_over_the_limit(
    ending: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = BytesIO()
    Image.fromarray(noise(1)[0]).save(content, ending, **options)
    monkeypatch.setenv("PLASM_READ_LIMIT", "0.00003")
    with pytest.raises(ValueError, match=r"a\.img.*(a frame of 64x48 would take|more than 1,342 pixels)"):
        decode_image(content, "a.img", False)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpeg", "webp"])
def test_images_are_upright_as_their_exif_says(orientation: int, ending: str) -> None:
    image, content = Image.fromarray(noise(1)[0]), BytesIO()
    image.save(content, ending)
    plain = Image.fromarray(decode_image(BytesIO(content.getvalue()), "a.img", False))
    exif, content = image.getexif(), BytesIO()
    exif[0x112] = plain.getexif()[0x112] = orientation
    image.save(content, ending, exif=exif)
    read = decode_image(BytesIO(content.getvalue()), "a.img", False)
    np.testing.assert_array_equal(read, np.asarray(ImageOps.exif_transpose(plain)))


def test_damaged_exif_leaves_a_picture_as_it_is() -> None:
    content = BytesIO()
    Image.fromarray(noise(1)[0]).save(content, "jpeg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff nonsense")
    assert decode_image(BytesIO(content.getvalue()), "a.jpg", False).shape == (48, 64, 3)


def test_a_profile_of_colour_is_no_end_of_the_process(tmp_path: Path) -> None:
    """PyAV frees what such a profile is called twice: seen when the process ends, too."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    images = [Image.fromarray(page) for page in noise(3)]
    images[0].save(tmp_path / "still.png", icc_profile=profile)
    images[0].save(tmp_path / "moving.png", icc_profile=profile, save_all=True, append_images=images[1:])
    script = (
        "import sys, pathlib; from plasm.data import open_source\n"
        "for name in sys.argv[1:]:\n"
        "    stream, = open_source(pathlib.Path(name), 3)\n"
        "    print(stream.read(0, stream.num_frames).shape[0])"
    )
    files = [str(tmp_path / name) for name in ("still.png", "moving.png")]
    done = subprocess.run([sys.executable, "-c", script, *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["1", "3"]), done.stderr


def test_frames_that_fill_the_memory_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    header = b"GIF89a" + struct.pack("<HHBBB", 16000, 16000, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
    frame = b"," + struct.pack("<HHHHB", 0, 0, 16000, 16000, 0) + b"\x02\x02\x4c\x01\x00"
    (tmp_path / "bomb.gif").write_bytes(header + 20 * frame + b";")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", 60000, 60000, 1, 0, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(png + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b""))
    jpeg = encode_image(noise(1)[0], "mjpeg")
    place = jpeg.index(b"\xff\xc0")
    (tmp_path / "bomb.jpg").write_bytes(jpeg[: place + 5] + struct.pack(">2H", 65000, 65000) + jpeg[place + 9 :])
    (tmp_path / "bomb.ppm").write_bytes(b"P6 50000 50000 255\n" + bytes(999))
    for name, size in (("gif", "16000x16000"), ("png", "60000x60000"), ("jpg", "65000x65000")):
        with pytest.raises(FileTooLargeError, match=rf"bomb\.{name}: a frame of {size} would take .*PLASM_READ_LIMIT"):
            open_source(tmp_path / f"bomb.{name}", 3)
    with pytest.raises(ValueError, match=r"bomb\.ppm (holds frames of no size|cannot be decoded|: a frame)"):
        open_source(tmp_path / "bomb.ppm", 3)


def test_a_gif_of_no_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(b"GIF89a" + bytes(7) + b";")
    with pytest.raises(ValueError, match=r"a\.gif holds no picture: it is 0x0"):
        open_source(tmp_path / "a.gif", 3)


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile '{secret}'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n",
    "hls_key": '#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF:9,\n{secret}\n',
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration='
    '"PT9S"><Period><AdaptationSet contentType="video" mimeType="video/mp4"><Representation id="0" bandwidth="9">'
    "<BaseURL>{url}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "text": "nothing but words\n" * 40,
    "rtsp": "RTSPtext\r\nRTSPURL={url}\r\n",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="{url}"/></svg>',
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_no_file_opens_another_or_a_connection(tmp_path: Path, kind: str) -> None:
    secret = write_video(tmp_path / "secret.mp4", noise(3))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        port = listener.getsockname()[1]
        text = PLAYLISTS[kind].format(secret=secret, url=f"http://127.0.0.1:{port}/a.ts", port=port)
        for ending in ("m3u8", "mp4", "avi", "jpg", "png", "gif", "sdp", "txt", "mpd", "%d.jpg"):
            file = tmp_path / f"a.{ending}"
            file.write_text(text, encoding="utf-8")
            with pytest.raises(ValueError, match=rf"{re.escape(file.name)} (cannot be decoded|holds no)"):
                open_source(file, 3)
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_frames_of_a_gif_without_control_blocks_are_read(tmp_path: Path, kept: int) -> None:
    """Of a GIF without any, FFmpeg sees one frame; Pillow is the second implementation."""
    images = [Image.fromarray(page) for page in noise(4, 16, 24)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=100)
    whole = (tmp_path / "a.gif").read_bytes()
    controls = re.findall(rb"!\xf9\x04.{4}\0", whole, re.DOTALL)
    assert len(controls) == 4
    for control in controls[kept:]:
        whole = whole[: (at := whole.rindex(control))] + whole[at + len(control) :]
    (tmp_path / "a.gif").write_bytes(whole)
    stream = VideoStream(tmp_path / "a.gif")
    assert stream.num_frames == 4
    with Image.open(tmp_path / "a.gif") as image:
        for number, frame in enumerate(stream.read(0, 4)):
            image.seek(number)
            np.testing.assert_array_equal(frame[..., :3], np.asarray(image.convert("RGB")))


def test_a_gif_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """FFmpeg would take what is missing for background."""
    images = [Image.fromarray(page) for page in noise(2, 16, 24)]
    for several in ([], images[1:]):
        content = BytesIO()
        images[0].save(content, "gif", save_all=True, append_images=several)
        whole = content.getvalue()
        file = tmp_path / "a.gif"
        file.write_bytes(whole)
        assert VideoStream(file).num_frames == 1 + len(several)
        file.write_bytes(whole[:-1])  # The last byte says that nothing follows.
        assert VideoStream(file).num_frames == 1 + len(several)
        for missing in range(2, 40, 7):
            file.write_bytes(whole[:-missing])
            with pytest.raises(ValueError, match=r"a\.gif is cut off"):
                VideoStream(file)
