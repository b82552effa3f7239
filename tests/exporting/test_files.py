import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import timm
import torch
from commands import fails, ok
from torch import Tensor, nn

import plasm
from plasm import weights
from plasm.data import SAMPLES, read_clips
from plasm.exporting import ExportedModel, ExportError, engines, files, is_exported, load_exported, read_metadata
from plasm.layers.conv import pad_to_multiple
from plasm.models import PLASM, SimVP, VideoModel, load_model

SMALL: dict[str, Any] = {
    "in_frames": 3, "out_frames": 2, "encoder_dim": 4, "translator_dim": 8, "encoder_depth": 2, "translator_depth": 1,
}  # fmt: skip
SIMVP: dict[str, Any] = {
    "in_frames": 3, "encoder_dim": 4, "translator_dim": 8, "encoder_depth": 2, "translator_depth": 2,
    "mlp_ratio": 2.0,
}  # fmt: skip
SIZE = (8, 12)


def small(**kwargs: Any) -> PLASM:
    torch.manual_seed(0)
    return PLASM(**{**SMALL, **kwargs}).eval()


def clips(batch: int = 2, size: tuple[int, int] = SIZE, channels: int = 1) -> Tensor:
    return torch.rand(batch, 3, channels, *size, generator=torch.Generator().manual_seed(1))


class Slow(nn.Module):
    """What onnxruntime computes otherwise: its Sigmoid is 0 below -18."""

    in_frames = out_frames = 3
    in_chans = 1

    def forward(self, clip: Tensor) -> Tensor:
        return (clip - 20).sigmoid() * 1e8


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("exported") / "small.onnx"
    plasm.export(small(), file, size=SIZE, dynamic_size=True, license="CC0-1.0")
    return file


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["channel", "spatial"])
def test_every_form_of_attention(attention: str, tmp_path: Path) -> None:
    model = small(attention=attention)
    plasm.export(model, tmp_path / "a.onnx", size=SIZE, engines=["onnxruntime"])
    torch.testing.assert_close(load_exported(tmp_path / "a.onnx")(clips()), model(clips()), atol=1e-4, rtol=1e-4)


def test_onnx_file_of_any_batch_and_size_that_says_what_it_is(exported: Path) -> None:
    model = small()
    onnx.checker.check_model(exported, full_check=True)
    session = onnxruntime.InferenceSession(exported)
    for batch, size in ((1, (8, 12)), (3, (16, 4))):
        clip = clips(batch, size)
        (frames,) = session.run(["frames"], {"clip": clip.numpy()})
        torch.testing.assert_close(torch.from_numpy(frames), model(clip), atol=1e-4, rtol=1e-4)
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata == read_metadata(exported)
    expected = {
        "plasm": plasm.__version__, "model": "PLASM", "license": "CC0-1.0", "in_frames": "3", "out_frames": "2",
        "in_chans": "1", "out_chans": "1", "dynamic_size": "true", "size_multiple": "2", "dtype": "float32",
        "format": "onnx, opset 20", "weights_sha256": weights.tensors_sha256(model.state_dict()),
    }  # fmt: skip
    assert expected.items() <= metadata.items()
    assert float(metadata["max_difference"]) <= 1e-3 * float(metadata["output_range"])
    assert [entry.version for entry in onnx.load(exported).opset_import if entry.domain == ""] == [20]


def test_a_compiled_model_is_exported_as_what_was_compiled(tmp_path: Path) -> None:
    done = plasm.export(torch.compile(small()), tmp_path / "small.pt2", "pt2", size=SIZE)
    assert done.metadata["model"] == "PLASM"
    assert torch.allclose(load_exported(done.file)(clips()), small()(clips()), atol=1e-5)


def test_exported_model_is_a_model(exported: Path) -> None:
    model, loaded = small(), load_model(None, str(exported))
    assert (loaded.in_frames, loaded.out_frames, loaded.in_chans) == (3, 2, 1)
    odd = clips(size=(9, 11))
    torch.testing.assert_close(loaded(odd), model(odd), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(loaded.predict(odd, 5), model.predict(odd, 5), atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match=r"\(B, 3, 1, H, W\)"):
        loaded(clips(channels=2))


def test_rollout_is_one_graph_which_pads_a_fixed_size(tmp_path: Path) -> None:
    model, odd = small(), clips(size=(9, 11))
    done = plasm.export(model, tmp_path / "r.onnx", size=(9, 11), num_frames=5, engines=["onnxruntime"])
    assert done.metadata["out_frames"] == "5"
    (frames,) = onnxruntime.InferenceSession(done.file).run(None, {"clip": odd.numpy()})
    torch.testing.assert_close(torch.from_numpy(frames), model.predict(odd, 5), atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="takes frames of 9x11, got 8x12"):
        load_exported(done.file)(clips())


@pytest.mark.parametrize(
    ("make", "num_frames", "feeds_back"),
    [
        (lambda: timm.create_model("convlstm_mmnist", in_frames=3, out_frames=2, hidden_dims=(4,)), None, False),
        (lambda: SimVP(**SIMVP, out_frames=2), None, True),
        (lambda: SimVP(**SIMVP, out_frames=5), None, False),  # 3, and 2 of the next 3
        (lambda: SimVP(**SIMVP, out_frames=5), 6, True),
        (small, 4, True),
        (small, 3, False),
    ],
)
def test_a_file_goes_on_as_its_model_does_or_not(
    make: Callable[[], VideoModel], num_frames: int | None, feeds_back: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = make().eval()
    done = plasm.export(model, tmp_path / "m.pt2", "pt2", size=SIZE, num_frames=num_frames)
    loaded, clip = load_exported(done.file), clips()
    longer = loaded.out_frames + 3
    if feeds_back:
        expected = model.predict(clip, longer)
        torch.testing.assert_close(loaded.predict(clip, longer), expected, atol=1e-3, rtol=1e-3)
        return
    with pytest.raises(ValueError, match=rf"m\.pt2 gives {loaded.out_frames} frames, .* --frames {longer}"):
        loaded.predict(clip, longer)
    assert loaded.predict(clip, loaded.out_frames).shape[1] == loaded.out_frames
    older = ExportedModel(loaded, {key: said for key, said in done.metadata.items() if key != "feeds_back"}, done.file)
    went_on = older.predict(clip, longer)
    assert not torch.allclose(went_on, model.predict(clip, longer), atol=1e-3, rtol=1e-3)


def test_half_is_half_the_size_and_float32_outside(tmp_path: Path) -> None:
    model = small(translator_dim=64)
    done = plasm.export(model, tmp_path / "h.onnx", size=SIZE, half=True, engines=["onnxruntime"])
    # Of the weights alone: torch writes more or fewer words about each node from one version to the next.
    stored = sum(tensor.ByteSize() for tensor in onnx.load(done.file).graph.initializer)
    assert stored < 0.6 * sum(parameter.nbytes for parameter in model.parameters())
    (frames,) = onnxruntime.InferenceSession(done.file).run(None, {"clip": clips().numpy()})
    assert frames.dtype == "float32"
    assert next(model.parameters()).dtype == torch.float32


def test_torchs_format(tmp_path: Path) -> None:
    model = small()
    done = plasm.export(model, tmp_path / "p.pt2", "pt2", size=SIZE)
    program = torch.export.load(done.file)
    torch.testing.assert_close(program.module()(clips(3)), model(clips(3)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(load_exported(done.file)(clips(1)), model(clips(1)), atol=1e-5, rtol=1e-5)
    assert read_metadata(done.file) == done.metadata


@pytest.mark.parametrize(
    "kwargs", [{}, *(pytest.param({option: True}, marks=pytest.mark.slow) for option in ("half", "dynamic_size"))]
)
def test_openvino_is_right_for_several_clips_at_once(kwargs: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = timm.create_model("plasm_mmnist_tiny", pretrained=True)
    # Less of it is quicker; its scores differ from clip to clip as those of the whole do.
    del model.translator.convnext[1:], model.translator.pla[1:]
    done = plasm.export(model, tmp_path / "m.onnx", size=(32, 32), engines=["openvino"], **kwargs)
    assert done.metadata["checked_in"].startswith("openvino 2")
    four = read_clips(SAMPLES / "clips.npz", 1)[:4, :10, ..., 16:48, 16:48]
    together = load_exported(done.file, engine="openvino")(four)
    torch.testing.assert_close(together, model.predict(four), atol=1e-3 * done.range, rtol=0)


def test_an_engine_that_is_wrong_for_several_clips_keeps_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        engines._ENGINES, "openvino", lambda file, threads: lambda clip: small()(clip) + (len(clip) - 1)
    )
    with pytest.raises(ExportError, match=r"not kept: in openvino the output of 3 clip\(s\) differs"):
        plasm.export(small(), tmp_path / "m.onnx", size=SIZE, engines=["onnxruntime", "openvino"])
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="engines are onnxruntime, openvino, got 'tensorrt'"):
        plasm.export(small(), tmp_path / "n.onnx", size=SIZE, engines=["tensorrt"])  # type: ignore[list-item]


def test_what_differs_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match="was not kept: in onnxruntime the output of 1 clip\\(s\\) differs from eager by"
    ):
        plasm.export(Slow(), tmp_path / "s.onnx", size=SIZE)
    assert not list(tmp_path.iterdir())


class Bordered(PLASM):
    """It pads as no caller of a graph does."""

    def pad_clip(self, clip: Tensor) -> Tensor:
        return pad_to_multiple(clip.flatten(1, 2), self.size_multiple, "replicate").unflatten(1, clip.shape[1:3])


def test_a_dynamic_size_is_of_models_that_pad_with_zeros(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Bordered(**SMALL).eval()
    with pytest.raises(ExportError, match=r"of 2 clip\(s\) differs from eager by .*, at 5x9"):
        plasm.export(model, tmp_path / "b.pt2", "pt2", size=SIZE, dynamic_size=True)
    assert not list(tmp_path.iterdir())
    plasm.export(model, tmp_path / "b.pt2", "pt2", size=(9, 11))
    radar = timm.create_model("plasm_radar", translator_dim=8, translator_depth=1)
    with pytest.raises(ValueError, match="this PLASMRadar has a fixed height and width"):
        plasm.export(radar, tmp_path / "r.pt2", "pt2", dynamic_size=True)


def test_published_weights_are_known(tmp_path: Path) -> None:
    model = timm.create_model("plasm_mmnist_tiny", pretrained=True)
    row = weights.entry("plasm_mmnist_tiny")
    assert files._weights_of(model) == (row.sha256, row)
    with torch.no_grad():
        model.decoder.readout.bias += 1
    assert files._weights_of(model) == (weights.tensors_sha256(model.state_dict()), None)


def test_published_weights_are_named_where_the_model_forecasts_as_they_were_measured() -> None:
    row = weights.entry("plasm_mmnist_tiny")
    for arguments, name in (({}, row.name), ({"skip": False}, row.model)):
        model = timm.create_model(row.name, pretrained=True, **arguments)
        told = files._describe(model, "onnx", None, (64, 64), False, False, None)
        assert (told["model"], told["weights_sha256"], told["license"]) == (name, row.sha256, row.license)


def test_wrong_arguments_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"format onnx ends in \.onnx"):
        plasm.export(small(), tmp_path / "a.pt2")
    with pytest.raises(ValueError, match="format is one of onnx, pt2, aoti, got 'torchscript'"):
        plasm.export(small(), tmp_path / "a.pt2", "torchscript")
    with pytest.raises(ValueError, match=r"give size=\(H, W\)"):
        plasm.export(small(), tmp_path / "a.onnx")
    for size in ((0, 64), (64, -1)):
        with pytest.raises(ValueError, match="size is a height and a width of a pixel or more, got"):
            plasm.export(small(), tmp_path / "a.pt2", "pt2", size=size)
    swin = timm.create_model("simvp_swin_mmnist", translator_depth=2, device="meta")
    for size in ((2, 8), (8, 9)):
        with pytest.raises(ValueError, match=f"size is a multiple of 2 from 4 on, got {size[0]} and {size[1]}"):
            plasm.export(small(), tmp_path / "a.pt2", "pt2", size=size, dynamic_size=True)
    with pytest.raises(ValueError, match="this SimVP has a fixed height and width"):
        plasm.export(swin, tmp_path / "a.onnx", dynamic_size=True)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"aoti needs a C\+\+ compiler, and there is none"):
        plasm.export(small(), tmp_path / "a.pt2", "aoti", size=SIZE)
    (tmp_path / "damaged.onnx").write_bytes(b"no model")
    (tmp_path / "damaged.pt2").write_bytes(b"no archive")
    with zipfile.ZipFile(tmp_path / "other.pt2", "w") as archive:
        archive.writestr("other/data", "")
    for name, message in (("damaged.onnx", "no model that"), ("damaged.pt2", "no whole"), ("gone.onnx", "not there")):
        with pytest.raises(OSError, match=message):
            load_exported(tmp_path / name)
    with pytest.raises(ValueError, match="not written by plasm export"):
        load_exported(tmp_path / "other.pt2")
    assert is_exported("a.onnx")
    assert not is_exported("a.safetensors")


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run: exported, and predicted with, as the run itself predicts."""
    monkeypatch.chdir(tmp_path)
    weights.save_pretrained(
        timm.create_model("plasm_mmnist_tiny", encoder_dim=4, encoder_depth=2, translator_dim=8, translator_depth=1),
        "run",
    )
    out = ok("export", "run", "--out", "run.onnx", "--dynamic-size")
    # Its size is not asked for: torch writes more or fewer words about each node from one version to the next.
    assert re.search(r"run\.onnx: 0\.\d MB, onnx, opset 20; largest difference from eager", out)
    assert read_metadata("run.onnx")["model"] == "plasm_mmnist_tiny"
    tables = [
        ok("predict", "--weights", name, *more, "--size", "16", "16", "--out", "p")
        for name, *more in (("run",), ("run.onnx",), ("run", "--runtime", "onnx"))
    ]
    # But for their first line, which says what predicted.
    assert [table.partition("\n")[0] for table in tables] == [
        "predicted by run", "predicted by run.onnx", "predicted by run",
    ]  # fmt: skip
    assert len({table.partition("\n")[2] for table in tables}) == 1
    assert "ends in .pt2" in fails("export", "run", "--format", "pt2", "--out", "run.onnx")
