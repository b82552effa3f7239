"""Exported files as weights, of one's own and of others."""

import io
import json
import pickle
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from commands import fails, ok
from torch import Tensor, nn

import plasm
from plasm.data import SAMPLES
from plasm.exporting import (
    METADATA,
    UntrustedFileError,
    load_exported,
    read_metadata,
    record_file,
    remember,
)
from plasm.models import load_model

FORMATS = {"onnx": "m.onnx", "pt2": "m.pt2", "aoti": "a.pt2"}

# The one that takes a compiler takes half a minute.
NAMES = [pytest.param(name, marks=pytest.mark.slow) if format == "aoti" else name for format, name in FORMATS.items()]


class Mix(nn.Module):
    """Each frame to come is a mixture of those there are."""

    in_chans, in_frames, out_frames = 1, 10, 10

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Conv3d(10, 10, 1)

    def forward(self, clip: Tensor) -> Tensor:
        return self.mix(clip)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each format but the one that takes a compiler."""
    folder = tmp_path_factory.mktemp("exports")
    for format in ("onnx", "pt2"):
        plasm.export(Mix(), folder / FORMATS[format], format, size=(64, 64), engines=["onnxruntime"])
    return folder


@pytest.fixture(scope="module")
def compiled(exports: Path) -> None:
    """The file of that one, among them."""
    if not any(map(shutil.which, ("g++", "clang++", "cl"))):
        pytest.skip("there is no C++ compiler")
    plasm.export(Mix(), exports / FORMATS["aoti"], "aoti", size=(64, 64))


@pytest.fixture
def untrusted(request: pytest.FixtureRequest, exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same files on the machine of another user."""
    if "name" in request.fixturenames and request.getfixturevalue("name") == FORMATS["aoti"]:
        request.getfixturevalue("compiled")
    monkeypatch.setenv("PLASM_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(exports, tmp_path / "downloads"))


def clips(batch: int = 2) -> Tensor:
    return torch.rand(batch, 10, 1, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_commands_take_each_format(
    name: str, request: pytest.FixtureRequest, exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == FORMATS["aoti"]:
        request.getfixturevalue("compiled")
    assert next(format for format in FORMATS if FORMATS[format] == name) in read_metadata(exports / name)["format"]
    for batch in (1, 3):
        clip = clips(batch)
        torch.testing.assert_close(load_exported(exports / name)(clip), Mix()(clip).detach(), atol=1e-5, rtol=1e-5)
    monkeypatch.chdir(tmp_path)
    np.save("clip.npy", np.random.default_rng(0).random((20, 64, 64), dtype=np.float32))
    ok("predict", "--weights", exports / name, "--input", "clip.npy", "--out", "p")
    clip = torch.from_numpy(np.load("clip.npy"))[None, :10, None]
    torch.testing.assert_close(torch.from_numpy(np.load("p/prediction.npy")), Mix()(clip).detach())
    said = ok("evaluate", "--weights", exports / name, "--data-dir", SAMPLES, "--num-clips", "2")
    assert "2 test clips of mmnist, 10 -> 10 frames" in said


def test_a_file_of_another_model_is_refused(exports: Path) -> None:
    file = str(exports / "m.onnx")
    for name in (None, "Mix", "some.module:Mix"):
        assert load_model(name, file).in_frames == 10
    with pytest.raises(ValueError, match=r"m\.onnx holds a Mix, not a simvp_mmnist_tiny"):
        load_model("simvp_mmnist_tiny", file)
    with pytest.raises(ValueError, match=r"m\.onnx computes with the arguments it was written with: .* in_frames"):
        load_model(None, file, in_frames=3)
    with pytest.raises(ValueError, match="engine is one of onnxruntime, openvino, got 'tvm'"):
        load_exported(file, engine="tvm")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_an_untrusted_file_runs_on_trust_alone(name: str, untrusted: Path, tmp_path: Path) -> None:
    for load in (load_exported, lambda file, **kwargs: load_model(None, str(file), **kwargs)):
        with pytest.raises(UntrustedFileError, match=rf"{name} was not exported by you .*--trust runs it"):
            load(untrusted / name)
        model: Any = load(untrusted / name, trust=True)
        torch.testing.assert_close(model(clips()), Mix()(clips()).detach(), atol=1e-4, rtol=1e-4)
    assert "--trust runs it" in fails("predict", "--weights", untrusted / name, "--out", tmp_path / "p")
    assert not (tmp_path / "p").exists()
    said = fails("evaluate", "--weights", untrusted / name, "--data-dir", SAMPLES, "--num-clips", "2")
    assert "--trust runs it" in said
    ok("evaluate", "--weights", untrusted / name, "--data-dir", SAMPLES, "--num-clips", "2", "--trust")
    assert not record_file().exists()


def test_the_page_takes_an_untrusted_file_on_trust_alone(untrusted: Path, tmp_path: Path) -> None:
    given = ("demo", "--weights", untrusted / "m.onnx", "--out", tmp_path / "page")
    assert "--trust runs it" in fails(*given)
    assert "index.html" in ok(*given, "--trust")


def test_only_the_very_file_is_known_and_nothing_beside_it_vouches(exports: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.onnx"
    shutil.copyfile(exports / "m.onnx", own)
    load_exported(own)
    model = onnx.load(own)
    model.graph.node[0].name = "another"
    onnx.save(model, own)
    remains = record_file().read_text()
    (tmp_path / "exports").write_text(remains)
    with pytest.raises(UntrustedFileError):
        load_exported(own)
    remember(own)
    load_exported(own)
    remember(own)
    assert len(record_file().read_text().split()) == len(remains.split()) + 1


def test_an_export_stays_where_no_record_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PLASM_CACHE", str(tmp_path / "file"))
    plasm.export(Mix(), tmp_path / "m.pt2", "pt2", size=(8, 8))
    assert "will take --trust" in caplog.text
    load_exported(tmp_path / "m.pt2", trust=True)


class Trap:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("sprung"),))


def rewritten(file: Path, **members: bytes) -> Path:
    """An archive with members added or replaced, named by their path, which may leave out its folder."""
    with zipfile.ZipFile(file) as archive:
        content = {info.filename: archive.read(info) for info in archive.infolist()}
    root = next(iter(content)).partition("/")[0]
    content |= {path if path in content else f"{root}/{path}": data for path, data in members.items()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return file


def test_what_a_program_does_not_need_is_not_read(
    untrusted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On trust, too: no sample, which is a pickle, and no library beside the program."""
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    torch.save(Trap(), buffer)
    members = {
        "data/sample_inputs/model.pt": buffer.getvalue(),
        "data/aotinductor/model/model.so": b"no library",
        "extra/other": pickle.dumps(Trap()),
    }
    file = rewritten(untrusted / "m.pt2", **members)
    with pytest.raises(UntrustedFileError):
        load_exported(file)
    assert not Path("sprung").exists()
    torch.testing.assert_close(load_exported(file, trust=True)(clips()), Mix()(clips()).detach())
    assert not Path("sprung").exists()


def test_plasms_own_files_hold_no_pickle_of_a_sample(exports: Path) -> None:
    with zipfile.ZipFile(exports / "m.pt2") as archive:
        samples = [info for info in archive.infolist() if "sample_inputs" in info.filename]
    assert all(info.file_size == 0 for info in samples)


def test_an_onnx_file_that_names_another_is_not_followed(untrusted: Path, tmp_path: Path) -> None:
    model = onnx.load(untrusted / "m.onnx")
    tensor = model.graph.initializer[0]
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(len(tensor.raw_data)))
    onnx.external_data_helper.set_external_data(tensor, location="../secret")
    tensor.ClearField("raw_data")
    (untrusted / "e.onnx").write_bytes(model.SerializeToString())
    assert read_metadata(untrusted / "e.onnx")["in_frames"] == "10"
    with pytest.raises(UntrustedFileError, match=r"e\.onnx was not exported by you"):
        load_exported(untrusted / "e.onnx")


def metadata_of(file: Path, content: bytes) -> Path:
    return rewritten(file, **{f"extra/{METADATA}": content})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"plasm": 1}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"plasm": "' + b"x" * 2**20 + b'"}',
        b'{"plasm": "0.1"}',
    ],
    ids=repr,
)
def test_damaged_metadata_of_an_archive(content: bytes, exports: Path, tmp_path: Path) -> None:
    file = Path(shutil.copyfile(exports / "m.pt2", tmp_path / "m.pt2"))
    with pytest.raises(OSError, match=r"m\.pt2") as error:
        read_metadata(metadata_of(file, content))
    # Python's own words are of no use to anybody.
    assert not any(words in str(error.value) for words in ("recursion", "Expecting", "codec can't"))
    assert "m.pt2" in fails("predict", "--weights", file, "--out", tmp_path / "p")


@pytest.mark.parametrize("value", ["", "-1", "0", "1.5", "ten", "9" * 5000, "²"])
def test_counts_of_metadata_are_counts(value: str, exports: Path, tmp_path: Path) -> None:
    file = Path(shutil.copyfile(exports / "m.pt2", tmp_path / "m.pt2"))
    metadata = json.dumps({**read_metadata(file), "in_frames": value}).encode()
    with pytest.raises(OSError, match=r"metadata of .*m\.pt2 are damaged: in_frames is no count"):
        load_exported(metadata_of(file, metadata))


def test_damaged_archives(exports: Path, tmp_path: Path) -> None:
    whole = (exports / "m.pt2").read_bytes()
    file = tmp_path / "m.pt2"
    for content in (b"", b"PK", b"\x00" * 100, whole[: len(whole) // 2], whole[-200:], b"PK\x05\x06" + bytes(18)):
        file.write_bytes(content)
        with pytest.raises((OSError, ValueError), match=r"m\.pt2 (is no whole|was not written)"):
            load_exported(file)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"m/extra/{METADATA}", b" " * 2**26)
    with pytest.raises(OSError, match=r"m\.pt2 is no whole .*larger than"):
        load_exported(file)
    # A member of another method, and one that is encrypted.
    for offset, value in ((8, 99), (6, 1)):
        content = bytearray(whole)
        place = content.rindex(f"extra/{METADATA}".encode()) - 46 - len("m/")
        place = content.rindex(b"PK\x01\x02", 0, place + 60)
        content[place + offset + 2 : place + offset + 4] = struct.pack("<H", value)
        file.write_bytes(content)
        with pytest.raises(OSError, match=r"m\.pt2 is no whole"):
            load_exported(file)


def program_of(file: Path) -> str:
    """The member that holds an archive's program, by torch's version."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    return next(name for name in names if name.endswith(("models/model.json", "serialized_exported_program.json")))


def test_an_archive_whose_program_is_damaged(untrusted: Path) -> None:
    for content in (b"{", b"[" * 100_000, b"{}"):
        file = Path(shutil.copyfile(untrusted / "m.pt2", untrusted / "d.pt2"))
        with pytest.raises(OSError, match=r"d\.pt2 is no \.pt2 file that torch .* loads"):
            load_exported(rewritten(file, **{program_of(file): content}), trust=True)


def test_damaged_onnx_files(exports: Path, tmp_path: Path) -> None:
    whole = (exports / "m.onnx").read_bytes()
    file = tmp_path / "d.onnx"
    for content in (b"", b"\x00", b"no model", whole[: len(whole) // 2], b"\xff" * 40, b"\x72" + b"\xff" * 9 + b"\x01"):
        file.write_bytes(content)
        with pytest.raises(OSError, match=r"d\.onnx is no model that"):
            load_exported(file)
    for content, message in (
        (b"\x08\x00" * 200_000, "more than 100,000 parts"),
        (b"\x72\x80\x80\x80\x02" + bytes(2**22), "larger than 1,048,576 bytes"),
    ):
        file.write_bytes(content)
        with pytest.raises(OSError, match=message):
            load_exported(file)
    model = onnx.load(exports / "m.onnx")
    del model.metadata_props[:]
    onnx.save(model, file)
    with pytest.raises(ValueError, match=r"d\.onnx was not written by plasm export"):
        load_exported(file, trust=True)
    assert "d.onnx was not written by plasm export" in fails("predict", "--weights", file, "--out", tmp_path / "p")


def test_a_file_that_gives_other_frames_than_it_says(untrusted: Path) -> None:
    file = untrusted / "m.pt2"
    metadata = json.dumps({**read_metadata(file), "out_frames": "7"}).encode()
    with pytest.raises(ValueError, match=r"gives frames of .*\(2, 10, 1, 64, 64\), where its metadata promise"):
        load_exported(metadata_of(file, metadata), trust=True)(clips())
    metadata = json.dumps({**read_metadata(file), "in_frames": "9", "out_frames": "10"}).encode()
    with pytest.raises(ValueError, match=r"m\.pt2 fails on a clip of"):
        load_exported(metadata_of(file, metadata), trust=True)(clips()[:, :9])
