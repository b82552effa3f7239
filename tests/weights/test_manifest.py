import dataclasses
import json
import re
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
        assert set(entry.metrics) == {"mse", "mae", "ssim", "ssim_published", "psnr"}
        assert re.fullmatch("[0-9a-f]{64}", entry.sha256)
        if entry.repo is not None:
            # A branch moves; what is published does not.
            assert re.fullmatch("[0-9a-f]{40}", entry.revision or "")
            continue
        file = weights.find(entry.model, entry.tag)
        assert file.stat().st_size == entry.size < 10_000_000
        model = timm.create_model(entry.name, pretrained=True)
        model.load_state_dict(weights.load_tensors(file), strict=True)


def test_the_default_is_the_first_row() -> None:
    entry = weights.entries()[0]
    assert weights.tags(entry.model)[0] == entry.tag
    assert weights.find(entry.model) == weights.find(entry.model, entry.tag)


@pytest.mark.parametrize("damage", ["bit", "truncated"])
def test_damage_in_the_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    entry = weights.entries()[0]
    content = bytearray(weights.find(entry.model, entry.tag).read_bytes())
    if damage == "bit":
        content[len(content) // 2] ^= 1
    else:
        del content[-1]
    (tmp_path / entry.file).write_bytes(content)
    monkeypatch.setattr(manifest, "FOLDER", tmp_path)
    with pytest.raises(OSError, match="damaged"):
        timm.create_model(entry.model, pretrained=True)


def test_rows_hold_every_field() -> None:
    rows = json.loads((manifest.FOLDER / "manifest.json").read_text())
    names = {field.name for field in dataclasses.fields(weights.Entry)}
    assert all(set(row) == names for row in rows)


def test_the_table_shows_every_row_in_full() -> None:
    here = dataclasses.replace(weights.entries()[0], pretraining=None)
    there = dataclasses.replace(here, tag="other", repo="some/one", revision="0" * 40, pretraining="50 clips")
    lines = weights.markdown_table([here, there]).splitlines()
    table = {line.split(" | ")[0].strip("| "): line for line in lines}
    assert table["model and tag"] == f"| model and tag | `{here.name}` | `{here.model}.other` |"
    assert table["where"] == f"| where | in the package | some/one@{'0' * 40} |"
    assert table["phase 1"] == "| phase 1 | none | 50 clips |"
    assert table["sha256"].count(here.sha256) == 2
    for value in (here.license, here.data, here.command, here.date, f"{here.clips:,}", f"{here.metrics['mse']:.2f}"):
        assert any(line.count(str(value)) >= 2 for line in lines)


def test_a_card_says_what_the_weights_are_not_with_which_a_run_began() -> None:
    row = weights.entry("plasm_mmnist_tiny")
    assert "nearly constant" in row.note
    assert "No figure of the paper is reproduced" in row.note
    assert row.note in weights.markdown_table([row])
    run = {"command": "train", "data": "mnist", "clips": 10, "clips_per_epoch": 10}
    for runs, there in (([{"weights": row.name}, run], True), ([run], False)):
        card = weights.Card(repo="", license="Apache-2.0", data="mnist", runs=runs)
        assert (row.note in card._training()) == there
