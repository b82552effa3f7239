"""What the commands do with a family that is not PLA-SM's."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from commands import fails, ok

from plasm.models import openstl
from plasm.weights import load_folder

ARGUMENTS: dict[str, Any] = {
    "in_frames": 2, "out_frames": 2, "encoder_dim": 4, "translator_dim": 16, "encoder_depth": 2, "translator_depth": 2,
    "mlp_ratio": 2.0,
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "method": "SimVP", "model_type": "ConvNeXt", "in_shape": [2, 1, 64, 64], "hid_S": 4, "hid_T": 16, "N_S": 2,
    "N_T": 2, "mlp_ratio": 2.0,
}  # fmt: skip


def model_args() -> list[str]:
    return [part for name, value in ARGUMENTS.items() for part in ("--model-arg", f"{name}={value}")]


def checkpoint(**more: Any) -> dict[str, Any]:
    """As OpenSTL's Lightning writes it."""
    state = openstl.create(CONFIG).state_dict()
    names = {
        name.replace("encoder.blocks.", "enc.enc.").replace("decoder.readout", "dec.readout")
        .replace("translator.blocks.", "hid.enc.").replace("decoder.blocks.", "dec.dec."): tensor
        for name, tensor in state.items()
    }  # fmt: skip
    named = {}
    for name, tensor in names.items():
        head, _, tail = name.partition(".conv.")
        if name.startswith(("enc", "dec.dec")):
            head, tail = name.rsplit(".", 2)[0], ".".join(name.rsplit(".", 2)[1:])
            tail = tail.replace("conv.", "conv.0.") if name.startswith("dec.dec.0") else tail
            name = f"{head}.conv.{tail}"
        named[f"model.{name}"] = tensor
    return {"state_dict": named, "epoch": 3, "pytorch-lightning_version": "1.9.0", **more}


def test_openstls_checkpoints_become_folders_that_timm_loads(tmp_path: Path) -> None:
    content = checkpoint()
    torch.save(content, tmp_path / "old.ckpt")
    (tmp_path / "model_param.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    by_config = ok("convert", tmp_path / "old.ckpt", tmp_path / "one", "--config", tmp_path / "model_param.json")
    assert f"{len(content['state_dict'])} tensors" in by_config
    ok("convert", tmp_path / "old.ckpt", tmp_path / "two", "--model", "simvp_convnext_mmnist", *model_args())
    ok("convert", tmp_path / "old.ckpt", tmp_path / "w.safetensors", "--config", tmp_path / "model_param.json")
    clip = torch.rand(1, 2, 1, 64, 64)
    expected = openstl.load(CONFIG, content)(clip)
    for folder in ("one", "two"):
        loaded = timm.create_model(f"local-dir:{tmp_path / folder}", pretrained=True).eval()
        torch.testing.assert_close(loaded(clip), expected, rtol=0, atol=0)
    loaded = timm.create_model(
        "simvp_convnext_mmnist", pretrained=True, pretrained_cfg_overlay={"file": str(tmp_path / "w.safetensors")},
        **ARGUMENTS,
    ).eval()  # fmt: skip
    torch.testing.assert_close(loaded(clip), expected, rtol=0, atol=0)


def test_convert_wants_to_know_of_which_model(tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "old.ckpt")
    (tmp_path / "p.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    common = ("convert", tmp_path / "old.ckpt", tmp_path / "new")
    assert "--model or --config says" in fails(*common)
    assert "give one" in fails(*common, "--config", tmp_path / "p.json", "--model", "simvp_mmnist")
    assert "--model-arg goes with --model" in fails(*common, "--config", tmp_path / "p.json", "--model-arg", "a=1")
    (tmp_path / "p.json").write_text(json.dumps({**CONFIG, "hid_T": 32}), encoding="utf-8")
    assert "does not fit the model" in fails(*common, "--config", tmp_path / "p.json")
    other = (*model_args(), "--model-arg", "out_chans=2")
    assert "decoder.readout.bias (1,) for (2,)" in fails(*common, "--model", "simvp_convnext_mmnist", *other)


def test_of_a_file_with_more_than_tensors_they_come_out_by_what_the_error_says(tmp_path: Path) -> None:
    content = checkpoint(hyper_parameters=argparse.Namespace(lr=1), best=np.float64(3))
    torch.save(content, tmp_path / "old.ckpt")
    output = fails("convert", tmp_path / "old.ckpt", tmp_path / "w.safetensors")
    assert "beside tensors" in output
    assert "argparse.Namespace" in output
    program = output[output.index("import torch") :]
    exec(program, {})
    ok("convert", tmp_path / "old.tensors.pth", tmp_path / "w.safetensors")


def test_both_phases_train_it(tmp_path: Path, sample_root: Path) -> None:
    common: list[object] = [
        "--model", "simvp_gsta_mmnist", "--data", "mmnist", "--data-dir", sample_root, "--epochs", 1,
        "--clips-per-epoch", 4, "--batch-size", 2, "--val-clips", 1, "--device", "cpu", *model_args(),
    ]  # fmt: skip
    ok("pretrain", *common, "--mask-ratio", 0.9, "--out", tmp_path / "one")
    ok("train", *common, "--init", tmp_path / "one", "--out", tmp_path / "two")
    first = timm.create_model("simvp_gsta_mmnist", **ARGUMENTS).encoder
    trained = timm.create_model(f"local-dir:{tmp_path / 'two'}", pretrained=True).encoder.state_dict()
    assert trained.keys() == first.state_dict().keys()
    pretrained = load_folder(tmp_path / "one")[0]
    # The encoder of phase 1 is frozen in phase 2.
    assert all(torch.equal(pretrained[f"encoder.{key}"], tensor) for key, tensor in trained.items())
