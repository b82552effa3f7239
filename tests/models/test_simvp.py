from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from tester import BaseModelTester
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from plasm import weights
from plasm.layers.token_blocks import SwinBlock
from plasm.layers.translator_blocks import BLOCKS
from plasm.models import TAU, MaskedAutoencoder, SimVP, create_task, openstl
from plasm.tasks import differential_divergence, total_loss

SMALL: dict[str, Any] = {
    "in_frames": 2, "out_frames": 2, "img_size": 16, "encoder_dim": 4, "translator_dim": 16, "encoder_depth": 2,
    "translator_depth": 3, "mlp_ratio": 2.0,
}  # fmt: skip
NAMES = {name: "tau_mmnist" if name == "tau" else f"simvp_{name}_mmnist" for name in BLOCKS} | {
    "incepu": "simvp_mmnist"
}
# Their training sees all clips of a batch.
BATCH_NORM = ("convmixer", "gsta", "moganet", "tau", "uniformer", "van")


class TestSimVP(BaseModelTester):
    parameters: Mapping[str, int] = {
        "simvp_caltech": 8_601_923, "simvp_convmixer_caltech": 1_533_763, "simvp_convmixer_human36m": 3_134_211,
        "simvp_convmixer_kth": 1_532_481, "simvp_convmixer_mmnist": 3_919_361, "simvp_convmixer_taxibj": 841_314,
        "simvp_convnext_caltech": 12_468_163, "simvp_convnext_human36m": 31_392_771, "simvp_convnext_kth": 12_466_881,
        "simvp_convnext_mmnist": 37_313_921, "simvp_convnext_taxibj": 7_843_554, "simvp_gsta_caltech": 15_634_243,
        "simvp_gsta_human36m": 11_327_235, "simvp_gsta_kth": 15_632_961, "simvp_gsta_mmnist": 46_769_665,
        "simvp_gsta_mmnist_tiny": 2_900_993, "simvp_gsta_taxibj": 9_961_058, "simvp_hornet_caltech": 15_262_723,
        "simvp_hornet_human36m": 28_117_635, "simvp_hornet_kth": 15_261_441, "simvp_hornet_mmnist": 45_738_305,
        "simvp_hornet_taxibj": 9_679_650, "simvp_human36m": 41_156_355, "simvp_kth": 12_152_385,
        "simvp_mlpmixer_caltech": 22_236_163, "simvp_mlpmixer_human36m": 35_146_883, "simvp_mlpmixer_kth": 20_262_657,
        "simvp_mlpmixer_mmnist": 38_192_449, "simvp_mlpmixer_taxibj": 8_244_002, "simvp_mmnist": 57_946_113,
        "simvp_mmnist_tiny": 2_798_593, "simvp_moganet_caltech": 15_637_609, "simvp_moganet_human36m": 8_618_889,
        "simvp_moganet_kth": 15_636_327, "simvp_moganet_mmnist": 46_777_065, "simvp_moganet_taxibj": 9_964_426,
        "simvp_poolformer_caltech": 12_377_923, "simvp_poolformer_human36m": 31_212_291,
        "simvp_poolformer_kth": 12_376_641, "simvp_poolformer_mmnist": 37_115_393,
        "simvp_poolformer_taxibj": 7_753_314, "simvp_swin_caltech": 15_333_235, "simvp_swin_human36m": 38_825_283,
        "simvp_swin_kth": 15_331_953, "simvp_swin_mmnist": 46_105_409, "simvp_swin_taxibj": 9_660_834,
        "simvp_taxibj": 13_794_914, "simvp_uniformer_caltech": 11_787_075, "simvp_uniformer_human36m": 27_714_307,
        "simvp_uniformer_kth": 11_785_793, "simvp_uniformer_mmnist": 44_834_817, "simvp_uniformer_taxibj": 9_525_346,
        "simvp_van_caltech": 14_895_043, "simvp_van_human36m": 37_524_483, "simvp_van_kth": 14_893_761,
        "simvp_van_mmnist": 44_520_833, "simvp_van_taxibj": 9_484_002, "simvp_vit_caltech": 12_700_739,
        "simvp_vit_human36m": 28_318_979, "simvp_vit_kth": 12_699_457, "simvp_vit_mmnist": 46_102_273,
        "simvp_vit_taxibj": 9_657_698, "tau_caltech": 44_657_283, "tau_human36m": 37_647_363, "tau_kth": 14_955_201,
        "tau_mmnist": 44_656_001, "tau_mmnist_tiny": 2_707_553, "tau_taxibj": 9_545_442,
    }  # fmt: skip
    # The last, of fewer frames than it is given, has an output that is cut.
    models = (*NAMES.values(), "simvp_gsta_caltech")
    graph_models = tuple(NAMES.values())
    quick_graphs = ("simvp_gsta_mmnist",)
    compile_backend = "eager"
    openvino_models = ("simvp_gsta_mmnist", "tau_mmnist")
    export_arguments: Mapping[str, Any] = {"translator_depth": 2}
    references = tuple(
        f"openstl_SimVP_{name}.safetensors"
        for name in (
            "ConvMixer", "ConvNeXt", "HorNet", "IncepU", "MLPMixer", "Moga", "Poolformer", "TAU", "Uniformer", "VAN",
            "ViT", "gSTA",
        )
    )  # fmt: skip
    # TAU's narrow MLP needs more than one unit that is not off.
    arguments: Mapping[str, Mapping[str, Any]] = {
        **dict.fromkeys(models, SMALL),
        "tau_mmnist": {**SMALL, "encoder_dim": 16, "translator_dim": 32},
        "simvp_gsta_caltech": {**SMALL, "out_frames": 1},
    }

    def not_promised(self, name: str) -> dict[str, str]:
        short = "gsta" if "gsta" in name else next(key for key, constructor in NAMES.items() if constructor == name)
        reasons = {}
        if short in BATCH_NORM:
            reasons["train_equals_eval"] = "BatchNorm takes the statistics of a batch in training"
        if short == "mlpmixer":
            reasons["any_size"] = "its MLP over positions fixes how many there are; img_size is an argument"
        return reasons

    def load_reference(self, config: dict[str, Any], state_dict: dict[str, Tensor]) -> nn.Module:
        return openstl.load(config, state_dict)

    def blocks(self, model: nn.Module) -> Iterator[nn.Module]:
        for part in (model.encoder, model.translator, model.decoder):
            yield from part.blocks


def small(**kwargs: Any) -> SimVP:
    return SimVP(**{**SMALL, **kwargs}).eval()


def test_fewer_frames_are_cut_and_more_are_whole_forecasts_fed_back() -> None:
    clip = torch.rand(2, 3, 1, 16, 16)
    net = small(in_frames=3, out_frames=3)
    once = net(clip)
    twice = net(once)
    for out_frames, expected in [(1, once[:, :1]), (5, torch.cat([once, twice[:, :2]], 1)), (8, None)]:
        other = small(in_frames=3, out_frames=out_frames)
        other.load_state_dict(net.state_dict())
        expected = torch.cat([once, twice, net(twice)[:, :2]], 1) if expected is None else expected
        torch.testing.assert_close(other(clip), expected)
        torch.testing.assert_close(net.predict(clip, out_frames), expected)


def test_gradients_pass_through_what_is_fed_back() -> None:
    clip = torch.rand(1, 2, 1, 16, 16)
    net = small(out_frames=3)
    net(clip)[:, 2].sum().backward()
    longer = {key: p.grad for key, p in net.named_parameters()}
    net.zero_grad()
    net(net(clip)[:, :2].detach())[:, 0].sum().backward()
    shorter = {key: p.grad for key, p in net.named_parameters()}
    assert not torch.allclose(longer["encoder.blocks.0.conv.weight"], shorter["encoder.blocks.0.conv.weight"])


def test_output_of_other_channels_cannot_be_fed_back() -> None:
    with pytest.raises(ValueError, match="in_frames=3 and out_frames=3"):
        small(out_frames=3, out_chans=2)
    shorter, clip = small(in_frames=3, out_frames=1, out_chans=2), torch.rand(1, 3, 1, 16, 16)
    for num_frames, more in ((2, "out_frames=2"), (4, "in_frames=4 and out_frames=4")):
        with pytest.raises(ValueError, match=f"ask for 1 or fewer, or make the model with {more}"):
            shorter.predict(clip, num_frames)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_an_odd_depth_of_the_encoder_is_rounded_down(depth: int) -> None:
    net = small(encoder_depth=depth)
    assert len(net.encoder.blocks) == len(net.decoder.blocks) == depth // 2 * 2
    assert net(torch.rand(1, 2, 1, 16, 24)).shape == (1, 2, 1, 16, 24)


def test_the_first_features_reach_the_last_block_of_the_decoder() -> None:
    net, x = small(), torch.rand(2, 4, 8, 8)
    skip = torch.rand(2, 4, 16, 16)
    up, last = net.decoder.blocks
    torch.testing.assert_close(net.decoder(x, skip), net.decoder.readout(last(up(x) + skip)))


def test_the_unet_joins_its_halves() -> None:
    translator, x = small(translator="incepu").translator, torch.rand(1, 8, 8, 8)
    one, two, three, four, five, six = translator.blocks
    first = one(x)
    second = two(first)
    fourth = four(three(second))
    fifth = five(torch.cat([fourth, second], 1))
    torch.testing.assert_close(translator.forward_blocks(x)[-1], six(torch.cat([fifth, first], 1)))


def test_groups_fall_to_one_where_they_do_not_divide() -> None:
    net = small(translator="incepu", encoder_dim=6, translator_dim=12)
    assert {conv.conv.groups for block in net.translator.blocks for conv in block.branches} == {1}
    net = small(translator="incepu", translator_dim=16, inception_kernel_sizes=(3, 5), inception_groups=4)
    assert [conv.conv.kernel_size[0] for conv in net.translator.blocks[0].branches] == [3, 5]
    assert net.translator.blocks[0].branches[0].conv.groups == 4


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(0.0, [0, 0, 0]), (0.2, [0.01, 0.105, 0.2]), (0.004, [0.004] * 3), ((0.01, 0.0), [0.01, 0.005, 0])],
)
def test_drop_path_is_what_was_asked_for(rate: Any, expected: list[float]) -> None:
    blocks = small(drop_path_rate=rate).translator.blocks
    assert [getattr(each.block.drop_path, "drop_prob", 0) for each in blocks] == pytest.approx(expected)


def test_swin_is_timms_with_shifts_and_without_mask() -> None:
    block = SwinBlock(16, (8, 8), shifted=True, mlp_ratio=2.0).eval()
    theirs = SwinTransformerBlock(16, (8, 8), num_heads=8, window_size=4, shift_size=2, mlp_ratio=2.0).eval()
    theirs.load_state_dict(block.state_dict())
    x = torch.rand(2, 16, 8, 8)
    masked = theirs(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert not torch.allclose(block(x), masked, atol=1e-3)
    theirs.attn_mask = None
    torch.testing.assert_close(block(x), theirs(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
    shifts = [each.block.shift_size for each in small(translator="swin", img_size=32).translator.blocks]
    assert shifts == [(0, 0), (2, 2), (0, 0)]
    assert SwinBlock(16, (14, 8)).window_size == (7, 7)


def test_an_mlp_mixer_says_which_size_it_takes() -> None:
    net = small(translator="mlpmixer", img_size=(16, 24))
    assert net(torch.rand(1, 2, 1, 15, 23)).shape == (1, 2, 1, 15, 23)
    with pytest.raises(ValueError, match=r"takes frames of 16 x 24, got 24 x 16: .* img_size=\(24, 16\)"):
        net(torch.rand(1, 2, 1, 24, 16))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"translator": "resnet"}, 'translator is "incepu" or one of'),
        ({"encoder_depth": 1}, "depths from 2"),
        ({"translator_depth": 1}, "depths from 2"),
        ({"encoder_dim": 5}, "two groups, which do not divide encoder_dim = 5"),
        ({"translator": "vit", "translator_dim": 12}, "8 heads, which do not divide 12"),
        ({"translator": "hornet", "translator_dim": 12}, "multiple of 8 channels, got 12"),
        ({"translator": "moganet", "translator_dim": 12}, "multiple of 8 channels, got 12"),
    ],
)
def test_what_no_model_has_is_an_error(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**wrong)


def test_phase_1_shows_the_decoder_no_skip() -> None:
    net = small()
    phase1 = MaskedAutoencoder(net.encoder, net.decoder, mask_ratio=0.9, attn_mask_ratio=None)
    clip, visible = torch.rand(1, 2, 1, 16, 16), torch.rand(2, 1, 16, 16) < 0.1
    expected = net.decoder(net.encoder(clip[0], visible))
    torch.testing.assert_close(phase1(clip, visible)[0], expected)
    # What is masked is not seen: not as pixels, nor through the skip.
    other = torch.where(visible[None], clip, torch.rand_like(clip))
    torch.testing.assert_close(phase1(other, visible)[0], expected, rtol=0, atol=0)
    phase1(clip, visible).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.encoder.parameters())


def test_with_all_pixels_visible_the_sparse_encoder_is_the_dense_one() -> None:
    net, frames = small(encoder_depth=4), torch.rand(2, 1, 16, 16)
    visible = torch.ones(2, 1, 16, 16, dtype=torch.bool)
    torch.testing.assert_close(net.encoder(frames, visible), net.encoder(frames), atol=1e-5, rtol=1e-5)


def test_tau_trains_by_a_tenth_of_the_divergence_beside_the_squared_error() -> None:
    net = TAU(**{**SMALL, "translator": "tau", "in_frames": 3, "out_frames": 3})
    clips = torch.rand(2, 6, 1, 16, 16)
    for name in ("tau_mmnist", "tau_mmnist_tiny"):
        losses, seen = create_task(name, net)(clips, torch.arange(2), 0, 0)
        assert losses["mse"] == F.mse_loss(seen.prediction, clips[:, 3:])
        assert losses["divergence"] == 0.1 * differential_divergence(seen.prediction, clips[:, 3:])
    total_loss(losses).backward()
    assert net.decoder.readout.weight.grad is not None
    assert list(create_task("simvp_gsta_mmnist", net)(clips, torch.arange(2), 0, 0)[0]) == ["mse"]
    with pytest.raises(ValueError, match="no option weight; it has: divergence_weight"):
        create_task("tau_mmnist", net, weight=1)


def test_weights_fit_another_number_of_channels(tmp_path: Path) -> None:
    net = timm.create_model("simvp_gsta_mmnist", **SMALL)
    weights.save_pretrained(net, tmp_path / "folder")
    wider = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True, in_chans=2, out_chans=3)
    assert wider.encoder.blocks[0].conv.weight.shape[1] == 2
    torch.testing.assert_close(wider.decoder.readout.weight, net.decoder.readout.weight.expand(3, -1, -1, -1))
    torch.testing.assert_close(wider.translator.state_dict(), net.translator.state_dict())


@pytest.mark.parametrize(
    ("name", "millions"),
    [("simvp_mmnist", 57.95), ("simvp_gsta_mmnist", 46.77), ("tau_mmnist", 44.66), ("simvp_convnext_mmnist", 37.31)],
)
def test_official_sizes(name: str, millions: float) -> None:
    count = sum(p.numel() for p in timm.create_model(name, device="meta").parameters())
    assert round(count / 1e6, 2) == millions


def test_the_original_simvp_has_its_size_and_trains() -> None:
    first = timm.create_model("simvp_mmnist", coder="original", translator_depth=3, device="meta")
    assert round(sum(p.numel() for p in first.parameters()) / 1e6, 1) == 22.3
    net = small(translator="incepu", coder="original")
    clip = torch.rand(1, 2, 1, 16, 16)
    net(clip).square().mean().backward()
    assert all(p.grad is not None for p in net.parameters())
    phase1 = MaskedAutoencoder(net.encoder, net.decoder, mask_ratio=0.9)
    assert phase1(clip).shape == clip.shape
    with pytest.raises(ValueError, match='coder is "openstl" or "original"'):
        small(coder="mine")
