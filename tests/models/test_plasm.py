from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tester import BaseModelTester
from torch import nn
from torch._dynamo.testing import CompileCounter

import plasm
from plasm import weights
from plasm.models import PLASM, MaskedAutoencoder, family_of, summarize
from plasm.models.plasm import FAMILY

# Of the first published weights.
FIRST_ARGS = {"translator_dim": 192, "score": "sigmoid", "skip": False}
SUM_OF_SQUARES = 195.25855664574897

SMALL: dict[str, Any] = {
    "in_frames": 3, "out_frames": 3, "encoder_dim": 8, "translator_dim": 16, "translator_depth": 3,
}  # fmt: skip


class TestPLASM(BaseModelTester):
    parameters: Mapping[str, int] = {
        "plasm_caltech": 3_585_523, "plasm_human36m": 1_063_183, "plasm_kth": 1_054_605, "plasm_mmnist": 19_000_593,
        "plasm_mmnist_tiny": 3_538_125, "plasm_taxibj": 4_483_522,
    }  # fmt: skip
    models = tuple(name for name in plasm.list_models() if family_of(name) is FAMILY)
    # The one with channels and numbers of frames of its own, too.
    graph_models = ("plasm_mmnist_tiny", "plasm_caltech")
    quick_graphs = ("plasm_mmnist_tiny",)
    onnx_models = openvino_models = ("plasm_mmnist_tiny",)
    export_arguments: Mapping[str, Any] = {"encoder_dim": 8, "translator_dim": 32, "translator_depth": 2}

    def blocks(self, model: nn.Module) -> Iterator[nn.Module]:
        for part in (model.encoder.blocks, model.translator.convnext, model.translator.pla, model.decoder.blocks):
            yield from part


# Table I: H, W, C | T, T' | Cs | Ct | M | N, and the heads of Section IV-B.
TABLE_1 = {
    "plasm_mmnist": ((1, 64, 64), 10, 10, 64, 512, 4, 4, 2),
    "plasm_taxibj": ((2, 32, 32), 4, 4, 32, 256, 2, 4, 8),
    "plasm_human36m": ((3, 128, 128), 4, 4, 64, 128, 2, 3, 2),
    "plasm_caltech": ((3, 128, 160), 10, 1, 64, 256, 2, 3, 8),
    "plasm_kth": ((1, 128, 128), 10, 20, 32, 128, 3, 3, 2),
}


@pytest.mark.parametrize("name", TABLE_1)
def test_constructors_are_table_1(name: str) -> None:
    size, frames, out_frames, encoder_dim, translator_dim, depth, translator_depth, heads = TABLE_1[name]
    model = timm.create_model(name, device="meta")
    assert model.pretrained_cfg["input_size"] == size
    assert (model.in_chans, model.in_frames, model.out_frames) == (size[0], frames, out_frames)
    assert model.encoder.num_features == encoder_dim
    assert model.num_features == translator_dim
    assert len(model.encoder.blocks) == len(model.decoder.blocks) == depth
    assert len(model.translator.convnext) == len(model.translator.pla) == translator_depth
    assert {block.num_heads for block in model.translator.pla} == {heads}


def test_size_of_the_papers_model() -> None:
    """Table V prints 19.3 M and 9.6 G; what its text describes has 19.0 M and 7.8 G."""
    text = summarize("plasm_mmnist")
    assert text.parameters / 1e6 == pytest.approx(19.0, abs=0.2)
    assert text.macs / 1e9 == pytest.approx(7.8, abs=0.3)
    code = summarize("plasm_mmnist", upsample="pixelshuffle")
    assert code.parameters / 1e6 == pytest.approx(19.2, abs=0.1)
    assert code.macs / 1e9 == pytest.approx(9.2, abs=0.1)
    assert summarize("plasm_mmnist_tiny").parameters < 5e6  # 10 MB in half precision


@pytest.mark.slow
def test_inductor_compiles_it() -> None:
    tester = TestPLASM()
    tester.inductor_models = ("plasm_mmnist_tiny",)
    tester.test_compile("plasm_mmnist_tiny")


def test_compiles_once_for_all_sizes() -> None:
    torch._dynamo.reset()
    graphs, model = CompileCounter(), PLASM(**SMALL).eval()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=graphs)
    for size in ((12, 20), (16, 8), (20, 12)):
        clip = torch.rand(2, 3, 1, *size)
        with torch.no_grad():
            torch.testing.assert_close(compiled(clip), model(clip), atol=1e-4, rtol=1e-4)
    assert graphs.frame_count == 1


def test_pla_block_j_pairs_with_convnext_block_n_plus_1_minus_j() -> None:
    model = PLASM(**SMALL)
    outputs: dict[str, torch.Tensor] = {}
    inputs: dict[str, tuple[torch.Tensor, ...]] = {}

    def record(key: str, module: nn.Module) -> None:
        def hook(_: nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
            inputs[key], outputs[key] = args, out

        module.register_forward_hook(hook)

    for kind in ("convnext", "pla"):
        for index, block in enumerate(getattr(model.translator, kind), start=1):
            record(f"{kind}{index}", block)
    _, features = model.forward_intermediates(torch.rand(1, 3, 1, 16, 16))
    for j in (1, 2, 3):
        low, high = inputs[f"pla{j}"]
        assert low is outputs[f"convnext{3 + 1 - j}"]
        assert high is outputs[f"pla{j - 1}" if j > 1 else "convnext3"]
    names = [f"{kind}{index}" for kind in ("convnext", "pla") for index in (1, 2, 3)]
    assert all(feature is outputs[name] for feature, name in zip(features, names, strict=True))


def test_stopping_early_runs_no_later_block() -> None:
    model = PLASM(**SMALL)
    model.translator.pla[1].register_forward_hook(lambda *_: pytest.fail("ran"))
    features = model.forward_intermediates(
        torch.rand(1, 3, 1, 16, 16), indices=[0, 3], stop_early=True, intermediates_only=True
    )
    assert len(features) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"attention": "none"},
        {"attention": "channel"},
        {"attention": "spatial"},
        {"score": "sigmoid"},
        {"score": "softmax"},
        {"residual": True},
        {"block": "conv7x7"},
        {"upsample": "pixelshuffle"},
        {"skip": True},
        {"num_heads": 16},
    ],
)
def test_what_the_paper_ablates_is_an_argument(arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    plain = PLASM(**SMALL)
    torch.manual_seed(0)
    changed = PLASM(**SMALL, **arguments)
    clip = torch.rand(2, 3, 1, 16, 16)
    out = changed(clip)
    assert out.shape == plain(clip).shape
    assert not torch.allclose(out, plain(clip))
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in changed.parameters())


@pytest.mark.parametrize("name", [*TABLE_1, "plasm_mmnist_tiny"])
@torch.no_grad()
def test_the_first_loss_is_that_of_a_forecast_of_zeros(name: str) -> None:
    """By initialisation alone, in both phases; the clips are as dark as Moving MNIST's, the hardest case."""
    torch.manual_seed(0)
    model = timm.create_model(name)
    _, height, width = model.pretrained_cfg["input_size"]
    clips = torch.zeros(2, model.in_frames + model.out_frames, model.in_chans, height, width)
    clips[..., height // 4 : height // 2, width // 4 : width // 2] = 0.8
    clip, target = clips[:, : model.in_frames], clips[:, model.in_frames :]
    autoencoder = MaskedAutoencoder(model.encoder, model.decoder, 0.95)
    for loss, zeros in (
        ((model(clip) - target).square().mean(), target.square().mean()),
        ((autoencoder(clip) - clip).square().mean(), clip.square().mean()),
    ):
        assert loss <= 1.2 * zeros


def test_without_pla_the_depth_stays() -> None:
    model = PLASM(**SMALL, attention="none")
    assert len(model.translator.pla) == 3
    assert not any("query" in name or "key" in name for name, _ in model.named_parameters())


def test_skip_adds_the_first_features_to_the_last_block() -> None:
    model = PLASM(**SMALL, skip=True)
    seen: list[torch.Tensor] = []
    model.decoder.blocks[-2].register_forward_hook(lambda module, args, out: seen.append(out))
    model.encoder.blocks[0].register_forward_hook(lambda module, args, out: seen.append(out))
    model.decoder.blocks[-1].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(torch.rand(1, 3, 1, 16, 16))
    first, before_last, into_last = seen
    torch.testing.assert_close(into_last, before_last + first)


@pytest.mark.parametrize(("out_frames", "partners"), [(2, [0, 1]), (5, [0, 1, 2, 2, 2])])
def test_a_skip_between_other_numbers_of_frames(out_frames: int, partners: list[int]) -> None:
    model = PLASM(**{**SMALL, "out_frames": out_frames}, skip=True)
    seen: list[torch.Tensor] = []
    model.decoder.blocks[-2].register_forward_hook(lambda module, args, out: seen.append(out))
    model.encoder.blocks[0].register_forward_hook(lambda module, args, out: seen.append(out))
    model.decoder.blocks[-1].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(torch.rand(1, 3, 1, 16, 16))
    first, before_last, into_last = seen
    torch.testing.assert_close(into_last, before_last + first[partners])


def test_a_frozen_encoder_stays_frozen() -> None:
    model = PLASM(**SMALL)
    model.freeze_encoder()
    model.train()
    assert not model.encoder.training
    assert not any(module.training for module in model.encoder.modules())
    assert model.translator.training
    model(torch.rand(1, 3, 1, 16, 16)).sum().backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert all(p.grad is not None for p in model.decoder.parameters())
    model.freeze_encoder(False)
    assert model.encoder.training
    assert all(p.requires_grad for p in model.encoder.parameters())


def test_predict_needs_a_positive_number_of_frames() -> None:
    with pytest.raises(ValueError, match="positive, got 0"):
        PLASM(**SMALL).predict(torch.rand(1, 3, 1, 16, 16), 0)


def test_intermediates_refuse_what_there_is_not() -> None:
    with pytest.raises(ValueError, match="norm=True"):
        PLASM(**SMALL).forward_intermediates(torch.rand(1, 3, 1, 16, 16), norm=True)


def test_timm_lists_weights_that_exist_and_no_others() -> None:
    published = {f"{entry.model}.{entry.tag}" for entry in weights.entries()}
    assert set(plasm.list_models(pretrained=True)) == published
    assert set(timm.list_models("plasm*", pretrained=True)) == {n for n in published if n.startswith("plasm")}
    assert set(timm.list_models("plasm*")) == {*TestPLASM.models, "plasm_radar"}
    assert set(TestPLASM.models) == {*TABLE_1, "plasm_mmnist_tiny"}


def test_no_weights_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(weights.WeightsNotFoundError, match=r"plasm_kth; there are: .*plasm_mmnist_tiny"):
        timm.create_model("plasm_kth", pretrained=True)
    with pytest.raises(weights.WeightsNotFoundError, match=r"plasm_mmnist_tiny\.nope"):
        timm.create_model("plasm_mmnist_tiny.nope", pretrained=True)
    with pytest.raises(weights.WeightsNotFoundError, match=r"plasm_mmnist_tiny\.nope"):
        plasm.create_model("plasm_mmnist_tiny.nope", device="meta")


def test_published_weights_adapt_to_other_channels() -> None:
    gray = timm.create_model("plasm_mmnist_tiny", pretrained=True).eval()
    color = timm.create_model("plasm_mmnist_tiny", pretrained=True, in_chans=3).eval()
    clip = torch.rand(1, 10, 1, 64, 64)
    out = color(clip.expand(-1, -1, 3, -1, -1))
    for channel in range(3):
        torch.testing.assert_close(out[:, :, channel], gray(clip)[:, :, 0], atol=1e-4, rtol=1e-4)


def test_skip_goes_past_the_features_to_the_head() -> None:
    model = PLASM(**SMALL, skip=True).eval()
    clip = torch.rand(1, 3, 1, 18, 13)
    features = model.forward_features(clip)
    torch.testing.assert_close(model.forward_head(features, clip), model(clip))
    with pytest.raises(ValueError, match="needs the clip"):
        model.forward_head(features)


@pytest.mark.parametrize("name", ["in_frames", "out_frames", "in_chans", "encoder_dim", "encoder_depth",
                                  "translator_dim", "translator_depth"])  # fmt: skip
@pytest.mark.parametrize("count", [0, -1, 1.5])
def test_a_model_of_nothing_is_an_error_at_once(name: str, count: float) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"{name} must be positive, a whole number, got {count}"):
        plasm.create_model("plasm_mmnist_tiny", **{name: count})


def test_a_folder_says_which_score_it_has(tmp_path: Path) -> None:
    """Weights with a sigmoid of the product, whose score is no default, load by their config.json."""
    clip = torch.rand(1, 10, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    old = timm.create_model("plasm_mmnist_tiny", **FIRST_ARGS).eval()
    old.load_state_dict(weights.load_tensors(Path(__file__).with_name("plasm_mmnist_tiny.mmnist.safetensors")))
    # Computed by the code that trained them, in fp32.
    torch.testing.assert_close(old(clip).double().square().sum().item(), SUM_OF_SQUARES, rtol=1e-4, atol=0)
    weights.save_pretrained(old, tmp_path)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert {block.score for block in model.translator.pla} == {"sigmoid"}
    torch.testing.assert_close(model(clip), old(clip), rtol=0, atol=0)


def test_default_weights_are_of_the_model_that_the_name_alone_gives() -> None:
    """As with timm: ``pretrained=True`` changes numbers, not the architecture."""
    published, alone = (timm.create_model("plasm_mmnist_tiny", pretrained=pretrained) for pretrained in (True, False))
    assert published._model_args == alone._model_args
