import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import plasm
from plasm import weights
from plasm.models import (
    Constructor,
    Family,
    VideoModel,
    adapt_out_channels,
    families,
    family_of,
    is_plasm_model,
    recipe,
)
from plasm.weights import manifest


class Net(VideoModel):
    """The smallest family: T frames to T' by a convolution."""

    def __init__(
        self, in_chans: int = 1, in_frames: int = 2, out_frames: int = 2, out_chans: int | None = None,
        scale: int = 1, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(in_chans, in_frames, out_frames, out_chans)
        self.scale = scale
        self.conv = nn.Conv2d(in_chans, self.out_chans, 1, device=device, dtype=dtype)

    def forward(self, clip: Tensor) -> Tensor:
        self.check_clip(clip)
        return self.scale * self.conv(clip.flatten(0, 1)).unflatten(0, clip.shape[:2])[:, : self.out_frames]


def checkpoint_filter_fn(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    return {key.replace("their_conv", "conv"): tensor for key, tensor in state_dict.items()}


FAMILY = Family(
    module=__name__,
    title="A test of families",
    url="https://arxiv.org/abs/0000.00000",
    citation="@misc{test}",
    recipes={"family_net": {"train": {"epochs": 7}}},
    adapters={"*conv.*": lambda tensor, model: adapt_out_channels(tensor, model.out_chans)},
    largest={"scale": 2},
    checkpoint_filter_fn=checkpoint_filter_fn,
)
default_cfgs = FAMILY.default_cfgs
__all__: list[str] = []


def register() -> Constructor[Net]:
    return FAMILY.register(Net, "family_net", in_chans=1, img_size=(8, 8), in_frames=2)


class Gray(Net):
    """A family may take the channels that it was made for, and no others."""

    def __init__(self, in_frames: int = 2, out_frames: int = 2, device: Any = None, dtype: Any = None) -> None:
        super().__init__(1, in_frames, out_frames, device=device, dtype=dtype)


class Unnamed(Net):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


family_net = register()
gray_net = FAMILY.register(Gray, "gray_net", in_chans=1, img_size=(8, 8))


def test_a_file_in_the_folder_is_all_that_a_family_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dropped_in.py").write_text("loaded = True", encoding="utf-8")
    monkeypatch.setattr(plasm.models, "__path__", [*plasm.models.__path__, str(tmp_path)])
    spec = plasm.models.__spec__
    exec(spec.loader.get_code(spec.name), vars(plasm.models).copy())  # type: ignore[union-attr]
    assert sys.modules.pop("plasm.models.dropped_in").loaded


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Net:
    """Weights of the family in the manifest, that were made when ``scale`` was 2 by default."""
    net = Net(scale=2)
    weights.save_tensors(net.state_dict(), tmp_path / "family_net.old.safetensors")
    row = weights.entry("plasm_mmnist_tiny")
    file = tmp_path / "family_net.old.safetensors"
    row = dataclasses.replace(
        row, model="family_net", tag="old", file=file.name, size=file.stat().st_size, sha256=weights.file_sha256(file),
        model_args={"scale": 2},
    )  # fmt: skip
    rows = (*weights.entries(), row)
    monkeypatch.setattr(manifest, "entries", lambda: rows)
    monkeypatch.setattr(weights, "entries", lambda: rows)
    weights.add_source(tmp_path)
    with pytest.warns(UserWarning, match="Overwriting family_net"):
        register()
    return net


def test_a_family_is_found_by_the_name_of_its_models() -> None:
    assert family_of("family_net") is family_of("family_net.tag") is FAMILY
    assert family_of("plasm_kth") is plasm.models.plasm.FAMILY
    assert family_of("resnet18") is family_of("no_such_model") is None
    assert (recipe("family_net", "train"), recipe("family_net", "pretrain"), recipe("resnet18", "train")) == (
        {"epochs": 7}, {}, {},
    )  # fmt: skip


def test_plasms_models_are_those_of_its_package() -> None:
    assert is_plasm_model("plasm_kth")
    assert is_plasm_model(weights.entry("plasm_mmnist_tiny").name)
    assert not any(is_plasm_model(name) for name in ("family_net", "resnet18", "no_such_model"))
    assert "family_net" not in plasm.list_models()


def test_published_weights_of_an_older_default_load_as_they_were_made(published: Net, tmp_path: Path) -> None:
    clip = torch.rand(1, 2, 1, 4, 4)
    for name in ("family_net", "family_net.old"):
        net = timm.create_model(name, pretrained=True)
        assert net.scale == 2
        torch.testing.assert_close(net(clip), published(clip))
    cfg = timm.models.get_pretrained_cfg("family_net.old")
    assert timm.create_model("family_net", pretrained=True, pretrained_cfg=cfg).scale == 2
    assert timm.create_model("family_net.old").scale == 2
    assert timm.create_model("family_net").scale == 1
    assert timm.create_model("family_net", pretrained=True, scale=1).scale == 1  # as asked
    # What is saved of it says so, and any argument that nobody gave.
    weights.save_pretrained(net, tmp_path / "saved")
    arguments = weights.read_model_config(tmp_path / "saved" / "config.json")["model_args"]
    assert arguments == {
        "in_chans": 1,
        "in_frames": 2,
        "out_frames": 2,
        "out_chans": None,
        "scale": 2,
        "num_classes": 0,
    }
    again = timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True)
    torch.testing.assert_close(again(clip), published(clip))


def test_a_row_of_another_family_is_no_affair_of_this_one(published: Net) -> None:
    assert not any("family_net" in family.default_cfgs for family in families())


def test_foreign_names_are_mapped_before_anything_is_compared() -> None:
    net = Net()
    theirs = {key.replace("conv", "their_conv"): tensor for key, tensor in net.state_dict().items()}
    given = {"pretrained_cfg_overlay": {"state_dict": theirs}}
    same = timm.create_model("family_net", pretrained=True, **given)
    assert torch.equal(same.conv.weight, net.conv.weight)
    with pytest.raises(ValueError, match="unexpected: extra"):
        timm.create_model(
            "family_net", pretrained=True, pretrained_cfg_overlay={"state_dict": {**theirs, "extra": torch.zeros(1)}}
        )


def test_adapters_are_found_by_pattern(caplog: pytest.LogCaptureFixture) -> None:
    state = Net().state_dict()
    wider = timm.create_model("family_net", pretrained=True, out_chans=3, pretrained_cfg_overlay={"state_dict": state})
    assert all(torch.equal(wider.conv.bias[i], state["conv.bias"][0]) for i in range(3))
    assert "conv.bias (1,) -> (3,)" in caplog.text


def test_untrusted_arguments_have_the_familys_limits(tmp_path: Path) -> None:
    net = timm.create_model("family_net", scale=3)
    weights.save_pretrained(net, tmp_path)
    with pytest.raises(ValueError, match="scale = 3; plasm builds it up to 2"):
        timm.create_model(f"local-dir:{tmp_path}")


@pytest.mark.parametrize(("name", "argument"), [("plasm_mmnist_tiny", "skip"), ("predrnn_mmnist_tiny", "layer_norm")])
def test_a_text_is_neither_true_nor_false(name: str, argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument} of {name} is True or False, got 'no'"):
        timm.create_model(name, device="meta", **{argument: "no"})
    timm.create_model(name, device="meta", **{argument: False})


def test_counts_must_be_positive() -> None:
    with pytest.raises(ValueError, match="out_frames must be positive, a whole number, got 0"):
        Net(out_frames=0)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("convlstm", {"patch_size": 0}),
        ("convlstm", {"hidden_dims": (8, 0)}),
        ("convlstm", {"kernel_size": 4}),
        ("predrnn", {"patch_size": -4}),
        ("e3dlstm", {"window": 0}),
        ("e3dlstm", {"stride": 0}),
        ("mau", {"hidden_dims": (0,)}),
        ("mau", {"kernel_size": 2}),
        ("phydnet", {"residual_dims": (0, 64)}),
        ("stam", {"patch_size": 0}),
        ("stam", {"hidden_dims": (0,)}),
        ("stam", {"kernel_size": 2}),
        ("stam", {"kernel_frames": 0}),
        ("predformer", {"depth": 0}),
        ("predformer", {"dim": 0}),
        ("predformer", {"patch_size": 0}),
        ("predformer", {"num_heads": -8}),
        ("predformer", {"expansion": 0}),
        ("simvp", {"encoder_kernel_size": 4}),
        ("simvp", {"decoder_kernel_size": 2}),
        ("simvp", {"inception_kernel_sizes": (3, 4)}),
        ("simvp", {"inception_kernel_sizes": ()}),
        ("simvp", {"drop_path_rate": 1.5}),
        ("simvp", {"drop_path_rate": (0.0, -0.1)}),
        ("simvp", {"drop_path_rate": "10%"}),
        ("predformer", {"drop_path_rate": -0.1}),
        ("predformer", {"drop_rate": 1.5}),
    ],
)
def test_a_size_that_no_layer_can_have_is_an_error_at_once(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=rf"{next(iter(wrong))} (must be (positive|odd)|has the side of a kernel|is a chance)"
    ):
        timm.create_model(f"{name}_mmnist", device="meta", **wrong)


def test_a_model_without_encoder_freezes_none_and_gives_no_features() -> None:
    net = Net()
    net.freeze_encoder(False)
    with pytest.raises(ValueError, match="Net has no encoder to freeze"):
        net.freeze_encoder()
    # An encoder without layers is none.
    stam: Any = timm.create_model("stam_mmnist", hidden_dims=(4,))
    with pytest.raises(ValueError, match="STAM has no encoder to freeze"):
        stam.freeze_encoder()
    with pytest.raises(ValueError, match="norm=True"):
        net.forward_intermediates(torch.rand(1, 2, 1, 4, 4), norm=True)


def test_what_timms_scripts_pass_and_the_class_does_not_take(tmp_path: Path) -> None:
    weights.save_pretrained(timm.create_model("family_net", drop_rate=0.0, img_size=(8, 8)), tmp_path)
    assert isinstance(timm.create_model(f"local-dir:{tmp_path}", pretrained=True), Net)
    with pytest.raises(ValueError, match=r"family_net has no drop_path_rate, which is 0\.1"):
        timm.create_model("family_net", drop_path_rate=0.1)


def test_a_class_without_channels_of_its_own_is_saved_and_loaded_and_takes_no_others(tmp_path: Path) -> None:
    model = timm.create_model("gray_net")
    weights.save_pretrained(model, tmp_path)
    file = {"file": str(tmp_path / "model.safetensors")}
    for loaded in (
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True),
        timm.create_model("gray_net", pretrained=True, pretrained_cfg_overlay=file),
        timm.create_model("gray_net", in_chans=1, checkpoint_path=file["file"]),
    ):
        assert isinstance(loaded, Gray)
        assert torch.equal(loaded.conv.weight, model.conv.weight)
    with pytest.raises(ValueError, match=r"gray_net takes 1 channel\(s\) alone, got in_chans=3"):
        timm.create_model("gray_net", in_chans=3)
    with pytest.raises(ValueError, match="Gray has no argument in_chans, so it takes no such clips"):
        model.predict(torch.rand(1, model.in_frames, 3, 8, 8))
    with pytest.raises(ValueError, match="make the model with in_frames=3: create_model"):
        model.predict(torch.rand(1, 3, 1, 8, 8))


def test_a_class_that_does_not_name_its_arguments_is_refused() -> None:
    """Its models trained, and failed when they were saved."""
    with pytest.raises(ValueError, match=r"Unnamed of unnamed_net takes \*args: Any and \*\*kwargs: Any: name each"):
        FAMILY.register(Unnamed, "unnamed_net", in_chans=1, img_size=(8, 8))
    assert not timm.is_model("unnamed_net")
