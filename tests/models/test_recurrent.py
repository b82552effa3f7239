import copy
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from tester import BaseModelTester
from torch import Tensor, nn

from plasm.models import MaskedAutoencoder, create_task, openstl
from plasm.models._recurrent import patchify, unpatchify
from plasm.models.e3dlstm import checkpoint_filter_fn
from plasm.tasks import total_loss

FRAMES: dict[str, Any] = {"in_frames": 2, "out_frames": 2, "img_size": 16}
PATCHES: dict[str, Any] = {**FRAMES, "patch_size": 2, "hidden_dims": (8, 8), "kernel_size": 3}
SMALL: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("convlstm", "predrnn", "predrnnpp", "predrnnv2", "mim", "e3dlstm"), PATCHES),
    "stam": {**PATCHES, "reduction": 2, "tau": 2, "as_paper": True},
    "mau": {**FRAMES, "hidden_dims": (8, 8), "kernel_size": 3, "reduction": 2, "tau": 2, "model_mode": "recall"},
    "phydnet": {**FRAMES, "residual_dims": (16, 64)},
    "crevnet": {**FRAMES, "depths": (1, 2), "num_modules": 2, "window": 2},
}
FIXED = ("mim", "e3dlstm", "stam", "mau")


def small(name: str, **kwargs: Any) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(f"{name}_mmnist", **{**SMALL[name], **kwargs})


class TestRecurrent(BaseModelTester):
    parameters: Mapping[str, int] = {
        "convlstm_caltech": 11_623_936, "convlstm_human36m": 12_089_344, "convlstm_kth": 11_520_512,
        "convlstm_mmnist": 11_675_648, "convlstm_mmnist_tiny": 923_648, "convlstm_taxibj": 11_572_224,
        "crevnet_caltech": 45_034_596, "crevnet_human36m": 45_034_596, "crevnet_kth": 5_005_892,
        "crevnet_mmnist": 5_005_892, "crevnet_mmnist_tiny": 837_389, "crevnet_taxibj": 1_269_104,
        "e3dlstm_caltech": 61_128_704, "e3dlstm_human36m": 54_362_112, "e3dlstm_kth": 58_671_104,
        "e3dlstm_mmnist": 51_347_456, "e3dlstm_mmnist_tiny": 715_264, "e3dlstm_taxibj": 50_987_008,
        "mau_caltech": 24_324_675, "mau_human36m": 7_621_315, "mau_kth": 20_130_113, "mau_mmnist": 4_475_329,
        "mau_mmnist_tiny": 476_785, "mau_taxibj": 4_401_602, "mim_caltech": 49_061_888, "mim_human36m": 40_435_712,
        "mim_kth": 46_522_368, "mim_mmnist": 37_945_344, "mim_mmnist_tiny": 238_112, "mim_taxibj": 37_765_120,
        "phydnet_caltech": 3_092_886, "phydnet_human36m": 3_092_886, "phydnet_kth": 3_091_732,
        "phydnet_mmnist": 3_091_732, "phydnet_mmnist_tiny": 259_796, "phydnet_taxibj": 3_092_309,
        "predrnn_caltech": 23_748_608, "predrnn_human36m": 24_559_616, "predrnn_kth": 23_568_384,
        "predrnn_mmnist": 23_838_720, "predrnn_mmnist_tiny": 204_369, "predrnn_taxibj": 23_658_496,
        "predrnnpp_caltech": 35_217_408, "predrnnpp_human36m": 36_028_416, "predrnnpp_kth": 35_037_184,
        "predrnnpp_mmnist": 35_307_520, "predrnnpp_mmnist_tiny": 241_460, "predrnnpp_taxibj": 35_127_296,
        "predrnnv2_caltech": 23_764_992, "predrnnv2_human36m": 24_576_000, "predrnnv2_kth": 23_584_768,
        "predrnnv2_mmnist": 23_855_104, "predrnnv2_taxibj": 23_674_880, "stam_caltech": 11_710_000,
        "stam_human36m": 9_743_920, "stam_kth": 9_548_304, "stam_mmnist": 3_650_064, "stam_mmnist_tiny": 917_163,
        "stam_taxibj": 2_273_312,
    }  # fmt: skip
    models = tuple(f"{name}_mmnist" for name in SMALL)
    compile_backend = "eager"
    export_arguments: Mapping[str, Any] = {"out_frames": 1}
    # One of a family: PredRNNv2's forward is PredRNN's.
    onnx_models = openvino_models = tuple(f"{name}_mmnist" for name in SMALL if name != "predrnnv2")
    arguments: Mapping[str, Mapping[str, Any]] = {f"{name}_mmnist": args for name, args in SMALL.items()}
    references = (
        *(
            f"openstl_{name}.safetensors"
            for name in (
                "ConvLSTM", "E3DLSTM", "MAU", "MIM", "PhyDNet", "PredRNN", "PredRNN_reverse", "PredRNNpp", "PredRNNv2"
            )
        ),
        "stam.safetensors",
    )  # fmt: skip

    def not_promised(self, name: str) -> dict[str, str]:
        short = name.removesuffix("_mmnist")
        reasons = {
            "feeds_back": "the recurrence goes on, and encodes no window again: tested below",
            "grad_checkpointing": "a step is run again, not a module: tested below",
            "other_channels": "each forecast is the next input, so that out_chans is in_chans: tested below",
        }
        reasons["features"] = "no layer can be pruned, since those below see those above: features tested below"
        if short in FIXED:
            reasons["any_size"] = "there are weights for each position; img_size is an argument"
        if short == "predrnnv2":
            reasons["every_gradient"] = "the adapter is of the decoupling loss alone: tested below"
            reasons |= dict.fromkeys(("export", "compile"), "its graph is PredRNN's, which is tested")
        return reasons

    def load_reference(self, config: dict[str, Any], state_dict: dict[str, Tensor]) -> nn.Module:
        return openstl.load(config, state_dict)


each_system = pytest.mark.parametrize("name", SMALL)


def clips(frames: int = 2, channels: int = 1, size: int = 16) -> Tensor:
    return torch.rand(2, frames, channels, size, size, generator=torch.Generator().manual_seed(1))


@each_system
def test_the_recurrence_goes_on_for_any_horizon(name: str) -> None:
    model = small(name).eval()
    longer = model.predict(clips(), 5)
    assert longer.shape == (2, 5, 1, 16, 16)
    assert not longer.requires_grad
    for frames in (1, 2):
        torch.testing.assert_close(longer[:, :frames], model.predict(clips(), frames), rtol=0, atol=0)
    torch.testing.assert_close(model(clips()), longer[:, :2])
    # A forecast that is fed back is what a longer clip would have had there.
    wider = small(name, in_frames=3).eval()
    wider.load_state_dict(model.state_dict())
    shown = torch.cat([clips(), longer[:, :1]], 1)
    torch.testing.assert_close(wider.predict(shown, 4), longer[:, 1:], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="num_frames must be positive"):
        model.predict(clips(), 0)


@each_system
def test_no_state_is_left_in_a_model(name: str) -> None:
    model = small(name).eval()
    first = model(clips())
    model(clips().flip(0))
    assert torch.equal(model(clips()), first)
    assert set(model.state_dict()) == {key for key, _ in model.named_parameters()}
    with ThreadPoolExecutor(2) as pool:
        at_once = list(pool.map(model, (clips(), clips().flip(0)) * 2))
    for one, other in zip(at_once, (first, first.flip(0)) * 2, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_openstls_e3dlstm_is_not_the_papers() -> None:
    """The same tensors, another forecast: nobody is to get one for the other."""
    theirs = {"cell_list.0.conv_x.conv3d.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"as_openstl=True, or convert them with their configuration \(--config\)"):
        checkpoint_filter_fn(theirs, small("e3dlstm"))
    checkpoint_filter_fn(theirs, small("e3dlstm", as_openstl=True))


@each_system
def test_features_are_the_hidden_states_of_the_layers(name: str) -> None:
    model = small(name)
    _, features = model.forward_intermediates(clips())
    assert len(features) == len(model.feature_info)
    for feature, info in zip(features, model.feature_info, strict=True):
        assert feature.shape == (2, info["num_chs"], 16 // info["reduction"], 16 // info["reduction"])
        model.get_submodule(info["module"])
    assert model.num_features == model.feature_info[-1]["num_chs"]
    with pytest.raises(ValueError, match="none can be pruned"):
        model.prune_intermediate_layers([0])


@each_system
def test_channels_of_the_frames(name: str) -> None:
    model = small(name, in_chans=3)
    assert model(clips(channels=3)).shape == (2, 2, 3, 16, 16)


@each_system
def test_frames_need_not_be_square(name: str) -> None:
    model = small(name, img_size=(8, 16))
    assert model(torch.rand(1, 2, 1, 8, 16)).shape == (1, 2, 1, 8, 16)
    if name in FIXED:
        with pytest.raises(ValueError, match=r"make the model with img_size=\(16, 8\)"):
            model(torch.rand(1, 2, 1, 16, 8))


@each_system
def test_steps_run_again_change_no_gradient(name: str) -> None:
    model = small(name)
    other = copy.deepcopy(model)
    other.set_grad_checkpointing()
    steps: list[int] = []
    step = other.step
    other.step = lambda *args: steps.append(1) or step(*args)
    for net in (model, other):
        net(clips()).square().mean().backward()
    assert len(steps) == 2 * 3
    for (key, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, msg=key)


@each_system
def test_training_reaches_every_parameter(name: str) -> None:
    task, both = create_task(f"{name}_mmnist", small(name)), torch.cat([clips(), clips(3)], 1)
    losses, seen = task(both, torch.arange(2), 0, 1_000_000)
    assert seen.prediction.shape == seen.target.shape
    total_loss(losses).backward()
    for key, parameter in task.model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key


@each_system
def test_after_sampling_has_stopped_training_forecasts_as_forward_does(name: str) -> None:
    model, clip = small(name), clips()
    _, seen = create_task(f"{name}_mmnist", model)(torch.cat([clip, clips()], 1), torch.arange(2), 0, 10**9)
    torch.testing.assert_close(seen.prediction, model(clip), atol=1e-5, rtol=1e-5)


@each_system
def test_training_is_no_argument_of_a_model(name: str) -> None:
    option = "forcing_steps" if name == "phydnet" else "sampling_stop"
    with pytest.raises(TypeError, match=f"has no argument {option}, which is an option of training: --task-arg"):
        small(name, **{option: 5})


def test_the_truth_is_shown_where_it_is_drawn() -> None:
    model, clip, target = small("predrnn"), clips(), clips(3)
    every, _ = model.unroll(clip, target, torch.ones(2, 3, dtype=torch.bool))
    wide = small("predrnn", in_frames=4)
    torch.testing.assert_close(every[:, 3:], wide.predict(torch.cat([clip, target], 1)[:, :4], 1))
    mixed = torch.ones(2, 3, dtype=torch.bool)
    mixed[1] = False
    some, _ = model.unroll(clip, target, mixed)
    torch.testing.assert_close(some[0], every[0])
    assert not torch.allclose(some[1, 1], every[1, 1])
    for drawn in (2, 4):
        with pytest.raises(ValueError, match=r"a mask of shape \(B, T \+ F - 2\) = \(B, 3\), .* got \(2, "):
            model.unroll(clip, target, torch.ones(2, drawn, dtype=torch.bool))


def test_patches_are_rows_then_columns_then_channels() -> None:
    frames = torch.arange(2 * 4 * 4.0).view(1, 2, 4, 4)
    patches = patchify(frames, 2)
    assert patches[0, :, 1, 0].tolist() == [8, 24, 9, 25, 12, 28, 13, 29]
    assert torch.equal(unpatchify(patches, 2), frames)


@pytest.mark.parametrize("name", ["predrnn", "predrnnpp", "mim", "e3dlstm", "stam", "mau"])
def test_a_memory_through_all_layers_needs_the_same_channels(name: str) -> None:
    with pytest.raises(ValueError, match=r"have the same hidden_dims, got \[8, 4\]"):
        small(name, hidden_dims=(8, 4))


def test_convlstm_layers_may_differ_and_norms_fix_the_size() -> None:
    assert small("convlstm", hidden_dims=(8, 4))(clips()).shape == (2, 2, 1, 16, 16)
    for name in ("convlstm", "predrnn", "predrnnpp", "mim", "e3dlstm"):
        model = small(name, layer_norm=True)
        assert model(clips()).isfinite().all()
        with pytest.raises(ValueError, match="has weights for each position of frames of 16 x 16, got 8 x 8"):
            model(clips(size=8))


@pytest.mark.parametrize("name", ["mau", "phydnet"])
def test_phase_1_trains_the_encoder_and_decoder_and_skips_show_nothing(name: str) -> None:
    model = small(name)
    autoencoder = MaskedAutoencoder(model.encoder, model.decoder, mask_ratio=0.5, mask_patch=4)
    clip = clips()
    visible = torch.zeros(4, 1, 16, 16, dtype=torch.bool)
    visible[..., :8] = True
    out = autoencoder(clip, visible)
    assert out.shape == clip.shape
    hidden = clip.clone()
    hidden[..., 8:] = 0.123
    torch.testing.assert_close(autoencoder(hidden, visible), out, rtol=0, atol=0)
    out.sum().backward()
    assert all(p.grad is not None for part in (model.encoder, model.decoder) for p in part.parameters())


def test_recall_adds_what_the_encoder_saw() -> None:
    model, features = small("mau", reduction=4), torch.rand(2, 8, 4, 4)
    skips = [torch.rand(2, 8, 16, 16), torch.rand(2, 8, 8, 8)]
    first, second = model.decoder.convs
    wanted = model.decoder.readout(second(F.leaky_relu(first(features), 0.2) + skips[1]) + skips[0])
    torch.testing.assert_close(model.decoder(features, skips), wanted)


def test_crevnet_decodes_the_frame_after_its_window() -> None:
    """What its modules leave as it is, it forecasts as it was: the last frame of a window, with nothing lost."""
    model = small("crevnet")
    for cell in model.cells:
        nn.init.constant_(cell.attention[2].bias, -100.0)
    torch.testing.assert_close(model(clips()), clips()[:, 1:].repeat(1, 2, 1, 1, 1), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="1 or more, got 0 and 2"):
        small("crevnet", num_modules=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stride": 2}, "OpenSTL runs with 1 alone"),
        ({"patch_size": 3}, "patches of 3 do not divide"),
        ({"filter_size": "big"}, "a value that is no number"),
        ({"method": "MAU", "patch_size": 4}, "patch_size 1 and stride 1 alone"),
        ({"method": "MAU", "sr_size": 3}, "power of two|does not divide"),
        ({"num_hidden": "8,4"}, "same hidden_dims"),
    ],
)
def test_configurations_that_do_not_run_are_errors(change: dict[str, Any], message: str) -> None:
    config = {"method": "PredRNN", "in_shape": [2, 1, 16, 16], "num_hidden": "8,8", "patch_size": 1}
    with pytest.raises(ValueError, match=message):
        openstl.create({**config, **change})
