import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from plasm import weights
from plasm.weights import files


def test_tensors_of_any_layout_come_back(tmp_path: Path) -> None:
    base = torch.rand(4, 3, 5, 5)
    tensors = {"cl": base.to(memory_format=torch.channels_last), "view": base[:, 1], "half": base.half()}
    weights.save_tensors(tensors, tmp_path / "w.safetensors")
    for name, tensor in weights.load_tensors(tmp_path / "w.safetensors").items():
        assert torch.equal(tensor, tensors[name])


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "w.safetensors"
    weights.save_tensors({"a": torch.zeros(2)}, file)

    def fail(tensors: dict[str, torch.Tensor], beside: Path) -> None:
        Path(beside).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(files, "save_file", fail)
    with pytest.raises(OSError, match="No space"):
        weights.save_tensors({"a": torch.ones(2)}, file)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]
    assert weights.load_tensors(file)["a"].sum() == 0


def test_what_is_no_safetensors_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    torch.save({"a": torch.zeros(2)}, file)
    with pytest.raises(OSError, match="not a whole safetensors file"):
        weights.load_tensors(file)
    weights.save_tensors({"a": torch.zeros(200)}, file)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(OSError, match="not a whole safetensors file"):
        weights.load_tensors(file)


def test_a_saved_folder_remembers_the_arguments(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"in_chans": 2, "out_frames": 3, "attention": "none", "translator_depth": 1}
    model = timm.create_model("plasm_mmnist_tiny", **arguments)
    weights.save_pretrained(model, tmp_path / "run", {"phase": "prediction"})
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.json", "model.safetensors"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["phase"] == "prediction"
    again = timm.create_model(f"local-dir:{tmp_path / 'run'}", pretrained=True)
    clip = torch.rand(1, 10, 2, 16, 16)
    assert torch.equal(again(clip), model(clip))
