from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import timm
import torch
from tester import BaseModelTester
from torch import nn

from plasm.layers.gated_transformer import GatedTransformerBlock, sinusoid
from plasm.models.predformer import block_axes
from plasm.training import TrainConfig, create_config

SMALL: dict[str, Any] = {"in_frames": 2, "out_frames": 2, "patch_size": 4, "dim": 16, "depth": 4, "num_heads": 2}


class TestPredFormer(BaseModelTester):
    parameters: Mapping[str, int] = {
        "predformer_human36m": 12_725_184, "predformer_mmnist": 33_702_720, "predformer_mmnist_tiny": 1_668_384,
        "predformer_taxibj": 8_434_464,
    }  # fmt: skip
    # The second, of fewer frames than it is given, has an output that is cut.
    models = ("predformer_mmnist", "predformer_mmnist_tiny")
    graph_models = openvino_models = ("predformer_mmnist",)
    arguments: Mapping[str, Mapping[str, Any]] = {
        "predformer_mmnist": SMALL,
        "predformer_mmnist_tiny": {**SMALL, "out_frames": 1},
    }

    def not_promised(self, name: str) -> dict[str, str]:
        return {"other_channels": "as many channels come out as go in: tested below"}

    def blocks(self, model: nn.Module) -> Iterator[nn.Module]:
        yield from model.blocks


def test_parameters_of_the_paper() -> None:
    model = timm.create_model("predformer_mmnist", device="meta")
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(33.7e6, rel=0.002)


def test_orders() -> None:
    assert block_axes("TSST", 8) == "TSSTTSST"
    assert block_axes("S|T", 4) == "SSTT"
    assert block_axes("F", 2) == "FF"
    for order, depth in (("TSST", 6), ("S|T", 3), ("SX", 2), ("", 2), ("S|", 2)):
        with pytest.raises(ValueError, match="order"):
            block_axes(order, depth)


@pytest.mark.parametrize("order", ["F", "S|T", "T|S", "ST", "TS", "STTS", "TSST"])
def test_every_order_runs(order: str) -> None:
    model = timm.create_model("predformer_mmnist", **SMALL, order=order, in_chans=3)
    assert model(torch.rand(1, 2, 3, 8, 12)).shape == (1, 2, 3, 8, 12)


def test_blocks_see_their_axis_alone() -> None:
    torch.manual_seed(0)
    clip = torch.rand(1, 2, 1, 8, 8)
    other = clip.clone()
    other[:, 1, :, 4:, 4:] += 1
    for order, unchanged in (("S", (0, slice(None))), ("T", (slice(None), 0))):
        model = timm.create_model("predformer_mmnist", **{**SMALL, "depth": 1}, order=order).eval()
        difference = (model(clip) - model(other)).abs()[0, :, 0]
        patches = difference.unfold(1, 4, 4).unfold(2, 4, 4).amax((-1, -2)).flatten(1)
        assert patches[unchanged].max() == 0
        assert patches[0 if order == "T" else 1, 3] > 0
    model = timm.create_model("predformer_mmnist", **{**SMALL, "depth": 1}, order="F").eval()
    assert (model(clip) - model(other)).abs().amax() > 0


def test_other_numbers_of_output_frames() -> None:
    torch.manual_seed(0)
    model = timm.create_model("predformer_mmnist", **SMALL).eval()
    clip = torch.rand(1, 2, 1, 8, 8)
    for out_frames in (1, 3):
        other = timm.create_model("predformer_mmnist", **{**SMALL, "out_frames": out_frames}).eval()
        other.load_state_dict(model.state_dict())
        torch.testing.assert_close(other(clip), model.predict(clip, out_frames))


def test_block_is_its_formula() -> None:
    torch.manual_seed(0)
    block, x = GatedTransformerBlock(8, 2, 3), torch.randn(2, 5, 8)
    q, k, v = (block.qkv(block.norm1(x))).chunk(3, -1)
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        heads.append(torch.softmax(q[..., part] @ k[..., part].mT / 2, -1) @ v[..., part])
    y = x + block.proj(torch.cat(heads, -1))
    z = block.norm2(y)
    gate, value = block.mlp.fc1_g(z), block.mlp.fc1_x(z)
    wanted = y + block.mlp.fc2(gate * torch.sigmoid(gate) * value)
    torch.testing.assert_close(block(x), wanted)


def test_positions_are_sines_and_cosines() -> None:
    table = sinusoid(3, 4)
    torch.testing.assert_close(table[2], torch.tensor([2.0, 0.02, 2.0, 0.02]).sin().where(
        torch.tensor([True, True, False, False]), torch.tensor([2.0, 0.02, 2.0, 0.02]).cos()
    ))  # fmt: skip


def test_its_recipe_has_the_papers_weight_decay() -> None:
    config = create_config(TrainConfig, {"model": "predformer_mmnist", "data": "mmnist", "data_dir": ".", "out": "o"})
    assert (config.optimizer, config.weight_decay, config.epochs) == ("adamw", 0.01, 2000)
