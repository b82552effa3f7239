import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from einops import rearrange
from torch import Tensor, nn

from plasm import weights
from plasm.data import SAMPLES, create_dataset
from plasm.models import (
    PLASM,
    adapt_in_channels,
    adapt_in_frames,
    adapt_out_channels,
    adapt_out_frames,
    initial_arguments,
    load_model,
)
from plasm.models._pretrained import _fitting

SMALL: dict[str, Any] = {"encoder_dim": 8, "translator_dim": 16, "translator_depth": 1, "skip": False}


def saved(folder: Path, **arguments: Any) -> PLASM:
    model: PLASM = timm.create_model("plasm_mmnist_tiny", **{**SMALL, **arguments})
    weights.save_pretrained(model, folder)
    return model


def load(folder: Path, **arguments: Any) -> PLASM:
    model: PLASM = timm.create_model(f"local-dir:{folder}", pretrained=True, **arguments)
    return model


def clip(frames: int, channels: int = 1) -> Tensor:
    return torch.rand(2, frames, channels, 16, 16)


def change(folder: Path, **changes: Any) -> None:
    """Rewrite entries of config.json: model_args, or those of the file itself."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    file.write_text(json.dumps(config))


def rewrite(folder: Path, change: Any) -> None:
    """Change the tensors, and the sha256 with them, as whoever made the folder could."""
    tensors = weights.load_tensors(folder / "model.safetensors")
    change(tensors)
    weights.save_tensors(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["weights"]["sha256"] = weights.file_sha256(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


# Other frame counts and channels.


def test_fewer_input_frames_see_the_oldest_as_if_it_stood_still(tmp_path: Path) -> None:
    old, new = saved(tmp_path), load(tmp_path, in_frames=4)
    seen = clip(4)
    repeated = torch.cat([seen[:, :1].expand(-1, 6, -1, -1, -1), seen], 1)
    torch.testing.assert_close(new(seen), old(repeated), atol=1e-5, rtol=1e-4)


def test_more_input_frames_change_nothing_at_first(tmp_path: Path) -> None:
    old, new = saved(tmp_path), load(tmp_path, in_frames=13)
    seen = clip(13)
    torch.testing.assert_close(new(seen), old(seen[:, 3:]), atol=1e-5, rtol=1e-4)


def test_fewer_output_frames_are_the_first(tmp_path: Path) -> None:
    old, new = saved(tmp_path), load(tmp_path, out_frames=3)
    seen = clip(10)
    torch.testing.assert_close(new(seen), old(seen)[:, :3], atol=1e-5, rtol=1e-4)


def test_more_output_frames_repeat_the_last(tmp_path: Path) -> None:
    old, new = saved(tmp_path), load(tmp_path, out_frames=12)
    seen = clip(10)
    before = old(seen)
    expected = torch.cat([before, before[:, -1:], before[:, -1:]], 1)
    torch.testing.assert_close(new(seen), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("old_chans", "new_chans"), [(1, 3), (3, 1), (2, 3), (3, 2)])
def test_other_channels(tmp_path: Path, old_chans: int, new_chans: int) -> None:
    old, new = saved(tmp_path, in_chans=old_chans), load(tmp_path, in_chans=new_chans)
    gray = clip(10)
    expected = old(gray.expand(-1, -1, old_chans, -1, -1)).mean(2, keepdim=True)
    out = new(gray.expand(-1, -1, new_chans, -1, -1))
    if 2 not in (old_chans, new_chans):  # with two, timm's rule gives the channels other shares
        torch.testing.assert_close(out, expected.expand_as(out), atol=1e-5, rtol=1e-4)
    assert out.shape[2] == new_chans


def test_other_patches_are_not_taken_for_other_channels(tmp_path: Path) -> None:
    """Four pixels of a patch in one channel are as many numbers as one pixel in four."""
    arguments = {"in_frames": 2, "out_frames": 2, "hidden_dims": (4,), "kernel_size": 3}
    weights.save_pretrained(timm.create_model("convlstm_mmnist", patch_size=4, **arguments), tmp_path)
    for asked in ({"patch_size": 2}, {"patch_size": 2, "in_chans": 3}):
        with pytest.raises(
            ValueError, match=r"does not fit the model: 2 tensor\(s\) of another shape: cells\.0\.conv_x"
        ):
            load(tmp_path, **asked)
    overlay = {"file": str(tmp_path / "model.safetensors")}
    with pytest.raises(ValueError, match=r"readout\.weight \(16, 4, 1, 1\) for \(12, 4, 1, 1\)"):
        timm.create_model(
            "convlstm_mmnist", pretrained=True, pretrained_cfg_overlay=overlay, patch_size=2, in_chans=3, **arguments
        )


def test_adapted_patches_keep_the_order_of_their_pixels() -> None:
    weight = torch.arange(12.0).view(2, 6)  # (K, G * C) of three places of two channels
    assert torch.equal(adapt_in_channels(weight, 1, 3), weight.view(2, 3, 2).sum(2))
    assert torch.equal(adapt_in_channels(weight, 4, 3), weight.view(2, 3, 2).repeat(1, 1, 2).flatten(1) / 2)
    bias = torch.arange(6.0)
    assert adapt_out_channels(bias, 3, 3).tolist() == [0.5] * 3 + [2.5] * 3 + [4.5] * 3


def test_the_rule_for_frames_keeps_what_was_learned_on_real_clips() -> None:
    """Published weights, 10 -> 10 frames, given five of them: not a fresh layer, nor the weights of other frames."""
    dataset = create_dataset("mmnist", SAMPLES, "test", num_clips=8, num_frames=20)
    clips = torch.stack([dataset[index] for index in range(8)])
    seen, truth = clips[:, 5:10], clips[:, 10:]
    model = timm.create_model("plasm_mmnist_tiny", pretrained=True, in_frames=5)
    state = timm.create_model("plasm_mmnist_tiny", pretrained=True).state_dict()["translator.in_proj.weight"]

    def error(weight: Tensor) -> float:
        model.translator.in_proj.weight.data.copy_(weight)
        return (model.predict(seen) - truth).square().mean().item()

    frames = rearrange(state, "o (t c) h w -> t o c h w", c=16)
    fresh = torch.nn.Conv2d(5 * 16, len(state), 1).weight.data
    ours = error(adapt_in_frames(state, 5, 16))
    assert ours < error(rearrange(frames[:5], "t o c h w -> o (t c) h w"))
    assert ours < error(fresh)


def test_adapters_give_back_what_fits() -> None:
    weight, bias = torch.rand(6, 4 * 2, 1, 1), torch.rand(4 * 2)
    assert torch.equal(adapt_in_frames(weight, 4, 2), weight)
    assert torch.equal(adapt_out_frames(bias, 4, 2), bias)
    # Frames outermost: of the last frame both channels.
    assert torch.equal(adapt_out_frames(bias, 5, 2)[-2:], bias[-2:])


def test_a_line_says_which_tensors_were_not_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = saved(tmp_path)
    with caplog.at_level(logging.WARNING):
        load(tmp_path)
    assert caplog.messages == []
    with caplog.at_level(logging.WARNING):
        new = load(tmp_path, in_chans=3, in_frames=4, out_frames=5)
    (message,) = [text for text in caplog.messages if "adapted" in text]
    before, after = old.state_dict(), new.state_dict()
    for name, tensor in before.items():
        assert (f"{name} {tuple(tensor.shape)} -> {tuple(after[name].shape)}" in message) == (
            tensor.shape != after[name].shape
        )
        if tensor.shape == after[name].shape:
            assert torch.equal(tensor, after[name])
    assert "all tensors but 6" in message


def test_features_and_devices_still_work(tmp_path: Path) -> None:
    old = saved(tmp_path)
    backbone = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True)
    seen = clip(10)
    torch.testing.assert_close(backbone(seen)[-1], old.forward_intermediates(seen)[0])
    assert load(tmp_path, dtype=torch.float64).encoder.blocks[0].conv.weight.dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "tensor"),
    [
        ({"encoder_dim": 4}, "encoder.blocks.0.conv.weight (8, 1, 3, 3) for (4, 1, 3, 3)"),
        ({"encoder_dim": 4, "in_frames": 5}, "translator.in_proj.weight (16, 80, 1, 1) for (16, 20, 1, 1)"),
        ({"translator_dim": 32}, "translator.out_proj.weight (80, 16, 1, 1) for (80, 32, 1, 1)"),
        ({"translator_depth": 2}, " tensor(s) missing: translator.pla.1."),
        ({"attention": "none"}, "6 tensor(s) unexpected: translator.pla.0.key.bias"),
    ],
)
def test_anything_else_that_does_not_fit_is_listed(tmp_path: Path, arguments: dict[str, Any], tensor: str) -> None:
    saved(tmp_path)
    with pytest.raises(ValueError, match="does not fit the model") as error:
        load(tmp_path, **arguments)
    assert tensor in str(error.value)


# What someone else made.


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.pop("encoder.blocks.0.norm.bias"), "missing: encoder.blocks.0.norm.bias"),
        (lambda t: t.update(extra=torch.zeros(1)), "unexpected: extra"),
        (lambda t: t.update({"decoder.readout.bias": torch.zeros(2)}), "decoder.readout.bias (2,) for (1,)"),
        (lambda t: t.update({"decoder.readout.bias": torch.zeros(1, dtype=torch.int8)}), "decoder.readout.bias int8"),
        (lambda t: t["decoder.readout.bias"].fill_(float("nan")), "not finite: decoder.readout.bias"),
        (lambda t: t["decoder.readout.bias"].fill_(float("inf")), "not finite: decoder.readout.bias"),
    ],
)
def test_wrong_tensors_are_named(untrusted: Path, damage: Any, message: str) -> None:
    rewrite(untrusted, damage)
    with pytest.raises(ValueError, match=r"model\.safetensors does not fit the model") as error:
        load(untrusted)
    assert message in str(error.value)


def test_damaged_bytes_are_found(untrusted: Path) -> None:
    file = untrusted / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(OSError, match="is damaged: its sha256"):
        load(untrusted)
    file.write_bytes(content[:-100])
    change(untrusted, weights={"sha256": weights.file_sha256(file)})
    with pytest.raises(OSError, match="not a whole safetensors file"):
        load(untrusted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"translator_dim": 10**9}, "translator_dim = 1000000000; plasm builds it up to 65536"),
        ({"in_chans": 10**9}, "has an input_size (C, H, W) of (1000000000, 64, 64)"),
        ({"encoder_depth": 10**6}, "encoder_depth = 1000000; plasm builds it up to 64"),
        ({"translator_dim": 65536, "translator_depth": 64}, "parameters; plasm builds it up to"),
        ({"in_frames": 65536, "encoder_dim": 65536}, "parameters; plasm builds it up to"),
        ({"translator_dim": -4}, "translator_dim = -4"),
        ({"translator_dim": 1e12}, "describes no PLASM"),
        ({"translator_dim": "many"}, "describes no PLASM"),
        ({"num_heads": 7}, "describes no PLASM: num_heads must divide"),
        ({"attention": "telepathy"}, "describes no PLASM"),
        ({"layers": 3}, "arguments that a PLASM has not: layers"),
        ({"pretrained_filter_fn": 3}, "arguments that a PLASM has not: pretrained_filter_fn"),
    ],
)
@pytest.mark.parametrize("pretrained", [True, False])
def test_a_configuration_of_no_model_is_refused(
    untrusted: Path, arguments: dict[str, Any], message: str, pretrained: bool
) -> None:
    change(untrusted, model_args=arguments)
    with pytest.raises(ValueError, match="untrusted") as error:
        timm.create_model(f"local-dir:{untrusted}", pretrained=pretrained)
    assert message in str(error.value)


@pytest.mark.parametrize("arguments", [{"in_frames": 4}, {"out_frames": 4}, {"in_chans": 3}, {"encoder_dim": 16}])
def test_a_configuration_that_disagrees_with_the_weights_is_no_wish(untrusted: Path, arguments: dict[str, Any]) -> None:
    change(untrusted, model_args=arguments)
    with pytest.raises(ValueError, match="does not fit the model"):
        load(untrusted)


def test_of_a_configuration_little_is_accepted(untrusted: Path) -> None:
    change(
        untrusted,
        pretrained_cfg={
            "first_conv": "decoder.readout", "custom_load": True, "url": "http://127.0.0.1:9/x.pth", "no_such": 1,
            "state_dict": {"a": 1}, "hf_hub_filename": "x.bin", "classifier": "decoder.readout",
        },
    )  # fmt: skip
    assert load(untrusted, in_chans=3).pretrained_cfg["first_conv"] == "encoder.blocks.0.conv"
    change(untrusted, pretrained_cfg={"input_size": "large"})
    with pytest.raises(ValueError, match="input_size"):
        load(untrusted)


def test_a_folder_of_pickles_is_not_opened(untrusted: Path, tmp_path: Path) -> None:
    (untrusted / "model.safetensors").unlink()
    (untrusted / "pytorch_model.bin").write_bytes(f"cos\nsystem\n(S'touch {tmp_path}/opened'\ntR.".encode())
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors"):
        load(untrusted)
    assert not (tmp_path / "opened").exists()


# A file that the user names.


def test_a_file_that_the_user_names(untrusted: Path, tmp_path: Path) -> None:
    def load_file(file: Path, **arguments: Any) -> PLASM:
        overlay = {"file": str(file)}
        model: PLASM = timm.create_model(
            "plasm_mmnist_tiny", pretrained=True, pretrained_cfg_overlay=overlay, **arguments
        )
        return model

    file = untrusted / "model.safetensors"
    expected = weights.load_tensors(file)
    model = load_file(file, **weights_arguments())
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(ValueError, match="does not fit the model"):
        load_file(file)
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors is not there"):
        load_file(tmp_path / "none.safetensors")
    torch.save(expected, tmp_path / "old.pth")
    with pytest.raises(ValueError, match=r"old\.pth is no \.safetensors file.*plasm convert"):
        load_file(tmp_path / "old.pth", **weights_arguments())
    with pytest.raises(ValueError, match=r"of another shape: encoder.blocks.0.conv.weight") as error:
        load_file(file, **{**weights_arguments(), "encoder_dim": 4})
    assert "missing" not in str(error.value)  # it speaks of the model that was asked for
    other = untrusted.with_name("other")
    timm_name = f"local-dir:{saved_to(other)}"
    model = timm.create_model(timm_name, pretrained=True, pretrained_cfg_overlay={"file": str(file)})
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    embedded = weights.find("plasm_mmnist_tiny")
    arguments = weights.entry("plasm_mmnist_tiny").model_args
    assert load_file(embedded, in_frames=3, **arguments)(clip(3)).shape == (2, 10, 1, 16, 16)


def saved_to(folder: Path) -> Path:
    saved(folder)
    return folder


def test_timms_own_configuration_of_a_model_loads_its_weights() -> None:
    cfg = timm.models.get_pretrained_cfg("plasm_mmnist_tiny")
    expected = timm.create_model("plasm_mmnist_tiny", pretrained=True).state_dict()
    for given in (cfg, cfg.to_dict()):
        state = timm.create_model("plasm_mmnist_tiny", pretrained=True, pretrained_cfg=given).state_dict()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in state.items())


def test_what_was_checked_is_what_is_loaded(untrusted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the file change after it was read, and before timm reads it."""
    file, expected = untrusted / "model.safetensors", weights.load_tensors(untrusted / "model.safetensors")
    read = weights.load_tensors

    def read_and_swap(path: Path) -> dict[str, Tensor]:
        tensors = read(path)
        weights.save_tensors({name: tensor + 1 for name, tensor in tensors.items()}, file)
        return tensors

    monkeypatch.setattr(weights, "load_tensors", read_and_swap)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load(untrusted).state_dict().items())


def weights_arguments() -> dict[str, Any]:
    return {"encoder_dim": 8, "translator_dim": 16, "translator_depth": 1}


def test_an_address_is_refused() -> None:
    overlay = {"url": "http://127.0.0.1:9/x.pth"}
    with pytest.raises(ValueError, match="not from addresses"):
        timm.create_model("plasm_kth", pretrained=True, pretrained_cfg_overlay=overlay)


def test_a_state_dict_that_the_user_gives(untrusted: Path) -> None:
    state = weights.load_tensors(untrusted / "model.safetensors")
    model = timm.create_model(
        "plasm_mmnist_tiny", pretrained=True, pretrained_cfg_overlay={"state_dict": state}, **weights_arguments()
    )
    assert torch.equal(model.state_dict()["decoder.readout.weight"], state["decoder.readout.weight"])


def test_a_pickle_on_the_hub_is_not_even_asked_for() -> None:
    overlay = {"hf_hub_id": "someone/model", "hf_hub_filename": "pytorch_model.bin"}
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is no \.safetensors file"):
        timm.create_model("plasm_kth", pretrained=True, pretrained_cfg_overlay=overlay)


def test_a_config_json_that_states_options_of_training_loads_and_forgets_them(tmp_path: Path) -> None:
    """They were arguments of models once."""
    small = {"in_frames": 2, "out_frames": 2, "hidden_dims": (4,), "patch_size": 8}
    model: Any = timm.create_model("predrnnv2_mmnist", **small)
    weights.save_pretrained(model, tmp_path)
    former = {
        "sampling_stop": 1 << 30, "reverse_sampling": True, "sampling_alpha": None, "decouple_weight": 0.1,
        "forcing_steps": 3,
    }  # fmt: skip
    change(tmp_path, model_args=former)
    for again in (timm.create_model(f"local-dir:{tmp_path}", pretrained=True), load_model(None, str(tmp_path))):
        assert again.state_dict().keys() == model.state_dict().keys()
        assert torch.equal(again.readout.weight, model.readout.weight)
    weights.save_pretrained(again, tmp_path / "again")
    arguments = weights.read_model_config(tmp_path / "again" / "config.json")["model_args"]
    assert not former.keys() & arguments.keys()
    assert initial_arguments("predrnnv2_mmnist", str(tmp_path)).keys() == small.keys()
    with pytest.raises(
        TypeError, match="predrnnv2_mmnist has no argument decouple_weight, which is an option of train"
    ):
        timm.create_model(f"local-dir:{tmp_path / 'again'}", pretrained=True, decouple_weight=1.0)


def test_a_filter_that_refuses_one_variant_is_asked_for_the_next() -> None:
    """OpenSTL's E3D-LSTM is refused by a default one, and by ``as_openstl=True`` taken."""
    one, two = nn.Linear(1, 1), nn.Linear(1, 1)

    def of_the_second(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        if model is one:
            raise ValueError("of another variant")
        return dict(tensors)

    assert _fitting(two.state_dict(), [one, two], of_the_second, "a file") == (two.state_dict(), 1)
    with pytest.raises(ValueError, match="of another variant"):
        _fitting(two.state_dict(), [one], of_the_second, "a file")
