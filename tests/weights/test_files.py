import errno
import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from plasm import weights
from plasm.models import PLASM


def test_tensors_of_any_layout_come_back(tmp_path: Path) -> None:
    base = torch.rand(4, 3, 5, 5)
    tensors = {"cl": base.to(memory_format=torch.channels_last), "view": base[:, 1], "half": base.half()}
    # Of the same memory in part.
    tensors |= {"base": base, "rows": base[1:]}
    weights.save_tensors(tensors, tmp_path / "w.safetensors")
    for name, tensor in weights.load_tensors(tmp_path / "w.safetensors").items():
        assert torch.equal(tensor, tensors[name])


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "w.safetensors"
    weights.save_tensors({"a": torch.zeros(2)}, file)

    write = Path.write_bytes

    def fail(beside: Path, content: bytes) -> None:
        write(beside, b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", fail)
        with pytest.raises(OSError, match=r"w\.safetensors cannot be written: No space"):
            weights.save_tensors({"a": torch.ones(2)}, file)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]
    assert weights.load_tensors(file)["a"].sum() == 0


def test_who_may_read_a_file_is_up_to_the_user(tmp_path: Path) -> None:
    for mask in (0o022, 0o077):
        before = os.umask(mask)
        try:
            weights.save_tensors({"a": torch.zeros(2)}, tmp_path / "w.safetensors")
        finally:
            os.umask(before)
        assert (tmp_path / "w.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask


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
    folder = tmp_path / "run"
    weights.save_pretrained(model, folder, {"phase": "prediction"})
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["phase"] == "prediction"
    assert config["model_args"].items() >= {**arguments, "in_frames": 10}.items()
    assert config["pretrained_cfg"]["mean"] == [0.0, 0.0]
    assert config["weights"] == {
        "file": "model.safetensors",
        "size": (folder / "model.safetensors").stat().st_size,
        "sha256": weights.file_sha256(folder / "model.safetensors"),
    }
    again = timm.create_model(f"local-dir:{folder}", pretrained=True)
    clip = torch.rand(1, 10, 2, 16, 16)
    assert torch.equal(again(clip), model(clip))


@pytest.mark.parametrize("name", ["phydnet_mmnist_tiny", "plasm_mmnist_tiny.league", "plasm_radar"])
def test_the_card_of_published_weights_is_of_the_manifest_while_they_are_unchanged(name: str, tmp_path: Path) -> None:
    row = weights.entry(*name.split(".", 1))
    model = timm.create_model(name, pretrained=True)
    weights.save_pretrained(model.half(), tmp_path / "same")
    card = (tmp_path / "same" / "README.md").read_text(encoding="utf-8")
    assert f"The weights `{row.name}` of plasm, trained on `{row.data}`: {row.clips:,} clips" in card
    assert row.note in card
    assert row.command in card
    assert all(f"`{key}` {value:.4f}" in card for key, value in row.metrics.items() if key in ("mse", "ssim"))
    assert "Phase 1" not in card
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 0.5
    # A model has its default weights' tag without having loaded them, too.
    # The same tensors with other arguments forecast otherwise.
    others: dict[str, dict[str, Any]] = {
        "phydnet_mmnist_tiny": {"in_frames": 3}, "plasm_mmnist_tiny.league": {"residual": True}
    }  # fmt: skip
    changed = [timm.create_model(name, pretrained=True, **others[name])] if name in others else []
    for other in (model, timm.create_model(name), *changed):
        weights.save_pretrained(other, tmp_path / "other")
        assert "Its maker said nothing" in (tmp_path / "other" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("license", [None, "mit"])
def test_card_and_configuration_say_the_same_licence(license: str | None, tmp_path: Path) -> None:
    """Of weights of which nothing is known it is nobody's to say, nor that of the constructor's published ones."""
    model = timm.create_model("plasm_radar")
    weights.save_pretrained(model, tmp_path, card=weights.Card(license=license) if license else None)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert ("license: mit\n" in card) == ("The weights are under mit." in card) == (license == "mit")
    assert ("license:" in card) == ("Nobody said" not in card) == (license is not None)
    assert json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]["license"] == license
    timm.create_model(f"local-dir:{tmp_path}", pretrained=True)


def test_a_run_in_progress_has_no_card(tmp_path: Path) -> None:
    model = timm.create_model("plasm_mmnist_tiny", encoder_dim=8, translator_dim=16, translator_depth=1)
    weights.save_pretrained(model, tmp_path, tensors={name: t + 1 for name, t in model.state_dict().items()})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    name, tensor = next(iter(model.state_dict().items()))
    assert torch.equal(again.state_dict()[name], tensor + 1)


def test_a_model_without_a_name_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"timm\.create_model did not make"):
        weights.save_pretrained(PLASM(encoder_dim=8, translator_dim=16), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_model_that_predicts_no_frames_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a ResNet does not say how many frames it maps to how many"):
        weights.save_pretrained(timm.create_model("test_resnet"), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_compiled_model_is_saved_as_the_model(tmp_path: Path) -> None:
    model = timm.create_model("plasm_mmnist_tiny", encoder_dim=8, translator_dim=16, translator_depth=1)
    weights.save_pretrained(torch.compile(model), tmp_path)  # type: ignore[arg-type]
    assert set(weights.load_tensors(tmp_path / "model.safetensors")) == set(model.state_dict())


CONFIG: dict[str, Any] = {"architecture": "plasm_kth", "model_args": {"in_chans": 3}, "pretrained_cfg": {}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ("[]", 'has no "architecture"'),
        ("{}", 'has no "architecture"'),
        (json.dumps({**CONFIG, "architecture": 3}), 'has no "architecture"'),
        (json.dumps({**CONFIG, "model_args": None}), "model_args is None"),
        (json.dumps({**CONFIG, "pretrained_cfg": []}), r"pretrained_cfg is \[\]"),
        (json.dumps({**CONFIG, "weights": "w"}), "weights is 'w'"),
        (json.dumps({**CONFIG, "weights": {"sha256": 5}}), "have the sha256 5"),
        (json.dumps({**CONFIG, "weights": {"sha256": "ABC"}}), "have the sha256 'ABC'"),
        (
            json.dumps({**CONFIG, "model_args": {"pretrained": True, "checkpoint_path": "evil.pth", "in_chans": 3}}),
            "no argument of a model: checkpoint_path, pretrained$",
        ),
    ],
)
def test_a_configuration_of_anyone_is_checked(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        weights.read_model_config(tmp_path / "config.json")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert weights.read_model_config(tmp_path / "config.json") == CONFIG


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "f").write_bytes(content)
    assert weights.file_sha256(tmp_path / "f") == hashlib.sha256(content).hexdigest()


def test_tensors_that_do_not_fit_are_listed() -> None:
    expected = {name: torch.zeros(2, device="meta") for name in ("a", "b", "c", "d")}
    tensors = {
        "b": torch.zeros(3),
        "c": torch.zeros(2, dtype=torch.int64),
        "d": torch.tensor([0.0, float("nan")]),
        "e": torch.zeros(2),
    }
    with pytest.raises(ValueError, match=r"^it does not fit the model: ") as error:
        weights.check_tensors(tensors, expected, "it")
    assert str(error.value).partition(": ")[2].split("; ") == [
        "1 tensor(s) missing: a",
        "1 tensor(s) unexpected: e",
        "1 tensor(s) of another shape: b (3,) for (2,)",
        "1 tensor(s) of no floating data type: c int64",
        "1 tensor(s) not finite: d",
    ]
    weights.check_tensors({name: torch.zeros(2).half() for name in expected}, expected, "it")


def test_half_precision_keeps_what_float16_cannot_hold() -> None:
    norm = torch.nn.BatchNorm2d(2)
    assert norm.running_var is not None
    norm.running_var[1] = 7e4
    halved = weights.half_precision(norm.state_dict())
    assert {name: tensor.dtype for name, tensor in halved.items()} == {
        "weight": torch.float16, "bias": torch.float16, "running_mean": torch.float16, "running_var": torch.float32,
        "num_batches_tracked": torch.int64,
    }  # fmt: skip
    assert halved["running_var"].tolist() == [1.0, 7e4]
    # Infinity is not hidden: `check_tensors` refuses it.
    assert weights.half_precision({"x": torch.tensor([float("-inf")])})["x"].isinf().all()


def test_what_is_put_around_a_model_is_not_saved(tmp_path: Path) -> None:
    model = timm.create_model("plasm_mmnist_tiny", encoder_dim=8, translator_dim=16, translator_depth=1)
    for index, wrapped in enumerate((nn.DataParallel(model), AveragedModel(nn.DataParallel(model)))):
        weights.save_pretrained(wrapped, tmp_path / str(index))
        loaded = timm.create_model(f"local-dir:{tmp_path / str(index)}", pretrained=True)
        assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def test_a_model_that_would_not_load_again_is_not_saved(tmp_path: Path) -> None:
    normed, pruned = (
        timm.create_model("plasm_mmnist_tiny", encoder_dim=8, translator_dim=16, translator_depth=2) for _ in range(2)
    )
    nn.utils.parametrizations.weight_norm(normed.decoder.readout)
    pruned.prune_intermediate_layers([0])
    for model in (normed, pruned):
        with pytest.raises(ValueError, match=r"a PLASM whose tensors .* would not load again.*decoder\.readout"):
            weights.save_pretrained(model, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_type_that_torch_has_not_is_an_error_in_users_words(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}).encode()
    (tmp_path / "odd.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"x")
    with pytest.raises(OSError, match=r"odd\.safetensors is not a whole safetensors file: .* cannot be read"):
        weights.load_tensors(tmp_path / "odd.safetensors")
