import json
import webbrowser
from pathlib import Path

import pytest
import timm
import torch
from commands import fails, ok

from plasm import weights
from plasm.demo import SITE, DemoServer, packaged_models, site_files

TINY = {"encoder_dim": 4, "translator_dim": 8, "encoder_depth": 2, "translator_depth": 1}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights that half precision holds."""
    folder = tmp_path_factory.mktemp("own") / "my run"
    weights.save_pretrained(timm.create_model("plasm_mmnist_tiny", **TINY).half().float(), folder)
    return folder


@pytest.fixture(autouse=True)
def _ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(server: DemoServer) -> None:
        assert server.content("models.json")
        raise KeyboardInterrupt

    monkeypatch.setattr(DemoServer, "serve_forever", interrupted)


def test_it_serves_and_opens_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    printed = ok("demo", "--port", 0)
    assert opened == [printed.split()[0]]
    ok("demo", "--port", 0, "--no-browser", "--weights", "plasm_mmnist_tiny")
    assert len(opened) == 1


def test_a_port_that_is_taken_is_said() -> None:
    with DemoServer(site_files()) as server:
        port = server.server_address[1]
        assert f"port {port} of 127.0.0.1 cannot be had" in fails("demo", "--no-browser", "--port", port)


def test_own_weights_are_exported_and_listed_with_those_that_ship(own: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnxruntime")
    given = [own, own, "plasm_mmnist_tiny", packaged_models()[0].name]
    ok("demo", *(part for source in given for part in ("--weights", source)), "--out", tmp_path / "page")
    first, second = json.loads((tmp_path / "page" / "models.json").read_text(encoding="utf-8"))
    assert (first["name"], second["name"]) == ("my_run", packaged_models()[0].name)
    assert first["weights_sha256"] == weights.file_sha256(own / "model.safetensors")
    session = onnx.InferenceSession(tmp_path / "page" / first["file"])
    clip = torch.rand(1, 10, 1, 64, 64)
    (made,) = session.run(None, {session.get_inputs()[0].name: clip.numpy()})
    model = timm.create_model(f"local-dir:{own}", pretrained=True).eval()
    assert (torch.from_numpy(made) - model.predict(clip)).abs().max() < 1e-4
    # Before anything is exported.
    assert "is there already" in fails("demo", "--weights", tmp_path / "nowhere", "--out", tmp_path / "page")
    # A file of plasm export is taken as it is.
    ok("demo", "--weights", tmp_path / "page" / first["file"], "--out", tmp_path / "again")
    (again,) = json.loads((tmp_path / "again" / "models.json").read_text(encoding="utf-8"))
    assert again["sha256"] == first["sha256"]
    assert sorted(path.name for path in (tmp_path / "again" / "models").iterdir()) == ["my_run.onnx"]


def test_models_of_one_name_stay_apart(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    shipped = packaged_models()[0]
    files = [tmp_path / each for each in ("a/run.onnx", "b/Run.onnx", f"c/{shipped.name}.onnx")]
    for number, file in enumerate(files):
        proto = onnx.load(SITE / shipped.file)
        next(item for item in proto.metadata_props if item.key == "weights_sha256").value = f"{number:064}"
        file.parent.mkdir()
        onnx.save(proto, file)
    ok("demo", "--trust", *(each for file in files for each in ("--weights", file)), "--out", tmp_path / "page")
    made = json.loads((tmp_path / "page" / "models.json").read_text(encoding="utf-8"))
    assert [model["name"] for model in made] == ["run", "Run-2", f"{shipped.name}-2"]
    for model, file in zip(made, files, strict=True):
        assert model["sha256"] == weights.file_sha256(tmp_path / "page" / model["file"]) == weights.file_sha256(file)


def test_what_the_page_cannot_show_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    weights.save_pretrained(timm.create_model("plasm_mmnist_tiny", in_chans=2, **TINY), tmp_path / "two")
    assert "takes 2 and forecasts 2" in fails("demo", "--weights", tmp_path / "two", "--out", tmp_path / "page")
