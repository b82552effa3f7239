"""STAM against its formulas, written out with 3D convolutions of weights under the names of its authors' code."""

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from plasm.models import STAM, openstl
from plasm.models._recurrent import patchify, unpatchify
from plasm.models.stam import checkpoint_filter_fn

CONFIG: dict[str, Any] = {
    "model": "stam", "in_shape": [5, 2, 16, 32], "aft_seq_length": 3, "patch_size": 2, "num_hidden": 3, "num_layers": 2,
    "sr_size": 4, "tau": 2, "filter_size": [3, 5, 5], "stride": 1,
}  # fmt: skip


def theirs(config: dict[str, Any]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    patch, dim = config["patch_size"] ** 2 * config["in_shape"][1], config["num_hidden"]
    side, depth = config["patch_size"] * config["sr_size"], config["sr_size"].bit_length() - 1
    places = (config["in_shape"][2] // side, config["in_shape"][3] // side)
    out: dict[str, Tensor] = {}

    def add(name: str, weight: tuple[int, ...], bias: int) -> None:
        out[f"{name}.weight"] = torch.randn(weight) * 0.3
        out[f"{name}.bias"] = torch.randn(bias) * 0.3

    for index in range(config["num_layers"]):
        parts = {"x": (dim if index else patch, 7), "h": (dim, 4), "m": (dim, 3), "o": (2 * dim, 1)}
        for part, (before, count) in parts.items():
            name = f"cell_list.{index}.conv_{part}"
            add(f"{name}.0", (count * dim, before, *config["filter_size"]), count * dim)
            for which in ("weight", "bias"):
                out[f"{name}.1.{which}"] = torch.randn(count * dim, 2, *places)
        add(f"cell_list.{index}.conv_last", (dim, 2 * dim, 1, 1, 1), dim)
    for index in range(depth):
        add(f"conv_encoder.encoder{index}", (patch, patch, 3, 3, 3), patch)
        add(f"conv_decoder.decoder{index if index < depth - 1 else depth}", (patch, patch, 3, 3), patch)
    add("conv_last", (patch, dim, 2, 1, 1), patch)
    return out


def attend(query: Tensor, memories: list[Tensor]) -> Tensor:
    scores = [(query * memory).exp() for memory in memories]
    return sum(score * memory for score, memory in zip(scores, memories, strict=True)) / sum(scores)


def written_out(
    tensors: dict[str, Tensor], config: dict[str, Any], clip: Tensor, num_frames: int, paper: bool
) -> Tensor:
    depth, tau, dim = config["sr_size"].bit_length() - 1, config["tau"], config["num_hidden"]

    def conv(name: str, x: Tensor, stride: Any = 1) -> Tensor:
        weight = tensors[f"{name}.weight"]
        padding = 0 if name == "conv_last" else [side // 2 for side in weight.shape[2:]]
        return F.conv3d(x, weight, tensors[f"{name}.bias"], stride, padding)

    def gates(name: str, x: Tensor) -> tuple[Tensor, ...]:
        y, weight = conv(f"{name}.0", x), tensors[f"{name}.1.weight"]
        return F.layer_norm(y, weight.shape, weight, tensors[f"{name}.1.bias"]).split(dim, 1)

    frames = [patchify(frame, config["patch_size"]) for frame in clip.unbind(1)]
    frames = [torch.zeros_like(frames[0]), *frames]
    h: list[Tensor] = []
    forecasts: list[Tensor] = []
    for step in range(clip.shape[1] + num_frames - 1):
        x = torch.stack(frames[step : step + 2], 2)
        for index in range(depth):
            x = conv(f"conv_encoder.encoder{index}", x, (1, 2, 2)).relu()
        if not h:
            zeros = x.new_zeros(x.shape[0], dim, *x.shape[2:])
            h, cs, ms = [zeros] * config["num_layers"], [[zeros] for _ in range(config["num_layers"])], [zeros]
        for index in range(config["num_layers"]):
            cell = f"cell_list.{index}"
            i_x, f_x, g_x, ii_x, ff_x, gg_x, o_x = gates(f"{cell}.conv_x", x)
            i_h, f_h, g_h, o_h = gates(f"{cell}.conv_h", h[index])
            ii_m, ff_m, gg_m = gates(f"{cell}.conv_m", ms[-1])
            f, ff = (f_x + f_h + 1).sigmoid(), (ff_x + ff_m + 1).sigmoid()
            past_c = cs[index][-tau:] if paper else [cs[index][-1]] * tau
            c = (i_x + i_h).sigmoid() * (g_x + g_h).tanh() + f * attend(f, past_c)
            m = (ii_x + ii_m).sigmoid() * (gg_x + gg_m).tanh() + ff * attend(ff, ms[-tau:])
            both = torch.cat([c, m], 1)
            (o_o,) = gates(f"{cell}.conv_o", both)
            x = h[index] = (o_x + o_h + o_o).sigmoid() * conv(f"{cell}.conv_last", both).tanh()
            cs[index].append(c)
            ms.append(m)
        y = conv("conv_last", x, (2, 1, 1)).squeeze(2)
        for index in range(depth):
            name = f"conv_decoder.decoder{index if index < depth - 1 else depth}"
            y = F.conv_transpose2d(
                y.relu() if index else y, tensors[f"{name}.weight"], tensors[f"{name}.bias"], 2, 1, 1
            )
        if step >= clip.shape[1] - 1:
            forecasts.append(unpatchify(y, config["patch_size"]))
            frames.append(y)
    return torch.stack(forecasts, 1)


@pytest.mark.parametrize("paper", [False, True])
@pytest.mark.parametrize(
    "change", [{}, {"sr_size": 1, "tau": 5}, {"sr_size": 2, "tau": 1, "num_layers": 3, "filter_size": [1, 3, 3]}]
)
def test_formulas_written_out(change: dict[str, Any], paper: bool) -> None:
    config = {**CONFIG, **change}
    tensors, clip = theirs(config), torch.rand(2, 5, 2, 16, 32)
    model: Any = openstl.load(config, {"net_param": tensors, "epoch": 3})
    if paper:
        model = STAM(**{**model._model_args, "as_paper": True}).eval()
        model.load_state_dict(checkpoint_filter_fn(tensors, model))
    wanted = written_out(tensors, config, clip, 4, paper)
    torch.testing.assert_close(model.predict(clip, 4), wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())
    torch.testing.assert_close(model(clip), wanted[:, :3], rtol=0, atol=1e-5 * wanted.abs().max().item())


def test_code_and_paper_forecast_otherwise_where_they_look_back() -> None:
    torch.manual_seed(0)
    code = timm.create_model("stam_mmnist", img_size=16, hidden_dims=(4, 4), in_frames=3)
    paper = timm.create_model("stam_mmnist", img_size=16, hidden_dims=(4, 4), in_frames=3, as_paper=True)
    paper.load_state_dict(code.state_dict())
    clip = torch.rand(1, 3, 1, 16, 16)
    assert not torch.allclose(code(clip), paper(clip), atol=1e-4)
    first = [model(clip)[:, 0] for model in (code, paper)]
    for model in (code, paper):
        model.tau = 1
    assert not torch.allclose(first[0], code(clip)[:, 0], atol=1e-6)  # the memories m are looked back on in both
    torch.testing.assert_close(code(clip), paper(clip))


def test_hooks_fire_on_every_module_with_parameters() -> None:
    model = timm.create_model("stam_mmnist", img_size=16, hidden_dims=(4, 4), in_frames=2, out_frames=1, reduction=2)
    called: set[str] = set()
    for name, module in model.named_modules():
        if name and next(module.parameters(), None) is not None and not isinstance(module, torch.nn.ModuleList):
            module.register_forward_hook(lambda *_, name=name: called.add(name))
    model(torch.rand(1, 2, 1, 16, 16))
    wanted = {name for name, parameter in model.named_parameters() for name in [name.rpartition(".")[0]]}
    assert wanted <= called
    assert {f"cells.{index}" for index in range(2)} <= called


def test_settings_of_the_benchmark() -> None:
    model = timm.create_model("stam_mmnist", device="meta")
    assert sum(p.numel() for p in model.parameters()) == 3_650_064
    assert [cell.dim for cell in model.cells] == [32] * 4
    built = openstl.create({"model": "stam", "in_shape": [10, 1, 64, 64], "num_hidden": 32, "sr_size": 1})
    for (name, p), (other, q) in zip(model.named_parameters(), built.named_parameters(), strict=True):
        assert (name, p.shape) == (other, q.shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sr_size": 3}, "power of two|do not divide"),
        ({"sr_size": 0}, "do not divide"),
        ({"patch_size": 3}, "patches of 3 and an sr_size of 4 do not divide 16 x 32"),
        ({"filter_size": [3, 3]}, "filter_size is odd, and as high as it is wide"),
        ({"filter_size": [3, 5, 3]}, "filter_size is odd, and as high as it is wide"),
        ({"filter_size": 2}, "filter_size is odd"),
        ({"stride": 2}, "with a stride of 2"),
        ({"tau": 0}, "tau 1 or more"),
        ({"num_hidden": [4, 4], "num_layers": 3}, "num_layers is 3, and num_hidden has 2"),
        ({"num_hidden": [4, 8]}, "same hidden_dims"),
        ({"tau": "some"}, "a value that is no number"),
        ({"filter_size": 3.7}, "a fraction where a whole number is needed: filter_size = 3.7"),
    ],
)
def test_configurations_that_do_not_run_are_errors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        openstl.create({**CONFIG, **change})
