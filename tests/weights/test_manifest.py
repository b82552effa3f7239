import dataclasses
import json
from pathlib import Path

import pytest
import timm

import plasm
from plasm import weights
from plasm.weights import manifest


def test_every_published_file_is_what_the_manifest_says() -> None:
    assert weights.entries()
    for entry in weights.entries():
        assert entry.model in plasm.list_models()
        assert weights.find(entry.model, entry.tag).stat().st_size == entry.size < 5_000_000
        model = timm.create_model(f"{entry.model}.{entry.tag}", pretrained=True)
        model.load_state_dict(weights.load_tensors(weights.path(entry.model, entry.tag)), strict=True)
        assert set(entry.metrics) == {"mse", "mae", "ssim", "ssim_published", "psnr"}


def test_the_default_is_the_first_row() -> None:
    entry = weights.entries()[0]
    assert weights.tags(entry.model)[0] == entry.tag
    assert weights.find(entry.model) == weights.find(entry.model, entry.tag)


@pytest.mark.parametrize("damage", ["bit", "truncated"])
def test_damage_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    entry = weights.entries()[0]
    content = bytearray(weights.path(entry.model, entry.tag).read_bytes())
    if damage == "bit":
        content[len(content) // 2] ^= 1
    else:
        del content[-1]
    (tmp_path / entry.file).write_bytes(content)
    monkeypatch.setattr(manifest, "_FOLDER", tmp_path)
    with pytest.raises(OSError, match="damaged"):
        timm.create_model(entry.model, pretrained=True)


def test_rows_hold_every_field() -> None:
    rows = json.loads((Path(manifest.__file__).parent / "manifest.json").read_text())
    names = {field.name for field in dataclasses.fields(weights.Entry)}
    assert all(set(row) == names for row in rows)
