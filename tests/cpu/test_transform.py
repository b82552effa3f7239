"""A model that was sped up against the same one of torch's own layers."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import plasm
from plasm.cpu import speed_up
from plasm.layers import ConvNeXtBlock, SparseConv2d, SparseEncoder, SparseGroupNorm
from plasm.models import create_task
from plasm.tasks import total_loss

# One of each family, small.
MODELS: dict[str, dict[str, Any]] = {
    "plasm_mmnist": {"encoder_dim": 8, "translator_dim": 32, "translator_depth": 2},
    "simvp_mmnist": {"encoder_dim": 8, "translator_dim": 32, "translator_depth": 2},
    "tau_mmnist": {"encoder_dim": 8, "translator_dim": 32, "translator_depth": 2},
    "simvp_moganet_mmnist": {"encoder_dim": 8, "translator_dim": 32, "translator_depth": 2},
    "convlstm_mmnist": {"hidden_dims": (64, 64), "patch_size": 2},
    "phydnet_mmnist": {"dim": 32, "residual_dims": (16, 32)},
    "mau_mmnist": {"hidden_dims": (8, 8)},
    "crevnet_mmnist": {"depths": (1, 1, 1), "num_modules": 1},
}


def make(name: str, **others: Any) -> nn.Module:
    """A small model with weights that are all their own."""
    torch.manual_seed(0)
    sizes = {"in_frames": 2, "out_frames": 2, "img_size": 32}
    model: nn.Module = timm.create_model(name, **{**sizes, **MODELS[name], **others})
    return model


def classes(model: nn.Module) -> list[type]:
    return [type(module) for module in model.modules()]


def step(name: str, model: nn.Module) -> tuple[Tensor, list[Tensor | None]]:
    """Prediction and gradients of a step of training."""
    torch.manual_seed(1)
    clips = torch.rand(2, 4, 1, 32, 32)
    losses, seen = create_task(name, model).train()(clips, torch.arange(2), 0, 0)
    return seen.prediction, list(torch.autograd.grad(total_loss(losses), list(model.parameters()), allow_unused=True))


@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_gradients_are_the_ordinary_models(name: str) -> None:
    model = make(name).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ordinary = copy.deepcopy(model)
    assert not any(kind.__module__.startswith("plasm.cpu") for kind in classes(model))
    assert speed_up(model) is model
    out, gradients = step(name, model)
    expected, its = step(name, ordinary)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)
    for mine, other in zip(gradients, its, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            assert (mine - other).norm() <= 1e-4 * other.norm() + 1e-6
    with torch.no_grad():
        clip = torch.rand(2, 2, 1, 32, 32)
        torch.testing.assert_close(model.eval()(clip), ordinary.eval()(clip), atol=1e-5, rtol=1e-4)


def test_only_classes_change_and_once() -> None:
    model = make("plasm_mmnist")
    before = copy.deepcopy(model)
    found = classes(speed_up(model))
    assert found != classes(before)
    assert classes(speed_up(model)) == found
    assert repr(model) == repr(before)
    assert model.state_dict().keys() == before.state_dict().keys()
    for module, other in zip(model.modules(), before.modules(), strict=True):
        assert isinstance(module, type(other))
        assert vars(module).keys() == vars(other).keys()


def test_other_classes_stay_as_they_are() -> None:
    class Own(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    net = nn.Sequential(Own(4, 4, 3, padding=1), nn.Conv3d(4, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 4))
    expected = classes(net)
    assert classes(speed_up(net)) == expected


def test_an_attribute_of_a_users_module_is_its_own_whatever_its_name() -> None:
    net = nn.Conv2d(1, 1, 3)
    outer: Any = nn.Sequential(net)
    outer.unrolling = True
    assert speed_up(outer).unrolling is True


def test_copies_files_and_hooks_are_as_before() -> None:
    model, clip = speed_up(make("convlstm_mmnist")).eval(), torch.rand(4, 2, 1, 32, 32)
    expected = model(clip)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(other(clip), expected)
    called: list[str] = []
    for key, part in model.named_modules():
        part.register_forward_hook(lambda *_, key=key: called.append(key))
    model(clip)
    assert {key for key, part in model.named_modules() if [*part.parameters(False)]} <= set(called)


@pytest.mark.parametrize(
    "way", [lambda p: p.data.mul_(2), lambda p: p.detach().mul_(2), lambda p: setattr(p, "data", 2 * p)]
)
def test_weights_may_change_in_any_way_between_clips(way: Callable[[nn.Parameter], None]) -> None:
    """Kernels that were transformed for one clip are not those of the next."""
    model = speed_up(make("convlstm_mmnist")).eval()
    ordinary, clip = make("convlstm_mmnist").eval(), torch.rand(4, 2, 1, 32, 32)
    for net in (model, ordinary):
        net.predict(clip)
        for parameter in net.parameters():
            way(parameter)
    torch.testing.assert_close(model.predict(clip, 3), ordinary.predict(clip, 3), atol=1e-4, rtol=1e-4)


def test_kernels_are_transformed_once_a_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Tensor] = []
    tensordot = torch.tensordot
    monkeypatch.setattr(torch, "tensordot", lambda *args: (made.append(args[1]), tensordot(*args))[1])
    model, clip = speed_up(make("convlstm_mmnist")), torch.rand(4, 2, 1, 32, 32)
    model.predict(clip, 5)
    gates = [part for part in model.modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (5, 5)]
    assert len(made) == len({id(weight) for weight in made}) == len([c for c in gates if c.in_channels >= 64]) > 1


def test_graphs_compute_the_same() -> None:
    """With channels last in memory, as the trainer has them, and in views that need to know so."""
    model = speed_up(make("plasm_mmnist", translator_depth=1).eval().to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    clip = torch.rand(4, 2, 1, 32, 32)
    with torch.no_grad():
        expected = model(clip)
        exported = torch.export.export(model, (clip,)).module()
        compiled = torch.compile(model, backend="aot_eager")
        for graph in (exported, compiled):
            torch.testing.assert_close(graph(clip), expected, atol=1e-4, rtol=1e-4)


def test_a_graph_of_an_ordinary_model_has_torchs_operators() -> None:
    program = torch.export.export(make("plasm_mmnist", translator_depth=1).eval(), (torch.rand(2, 2, 1, 32, 32),))
    assert torch.ops.aten.group_norm.default in {node.target for node in program.graph.nodes}


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "one frame": (lambda: nn.Conv2d(6, 6, 5, padding=2, groups=6), (6, 9, 9)),
    "one frame, dilated": (lambda: nn.Conv2d(6, 6, 5, padding=4, dilation=2, groups=6), (6, 9, 9)),
    "one frame, transposed": (lambda: nn.ConvTranspose2d(6, 4, 3), (6, 9, 9)),
    "no places": (lambda: nn.GroupNorm(2, 6), (3, 6)),
    "windows": (lambda: nn.GroupNorm(2, 6), (3, 6, 2, 4, 4)),
    "no weight": (lambda: nn.GroupNorm(2, 6, affine=False), (3, 6, 4, 4)),
    "bias as it is": (lambda: frozen_bias(nn.Conv2d(6, 6, 7, padding=3, groups=6)), (3, 6, 9, 9)),
    "sparse layer, dense frames": (lambda: SparseConv2d(6, 6, 3, padding=1), (3, 6, 9, 9)),
    "sparse norm, dense frames": (lambda: SparseGroupNorm(2, 6), (3, 6, 9, 9)),
}  # fmt: skip


def frozen_bias(conv: nn.Conv2d) -> nn.Conv2d:
    assert conv.bias is not None
    conv.bias.requires_grad_(False)
    return conv


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("grad", [True, False])
def test_whatever_a_layer_takes_is_taken(name: str, grad: bool) -> None:
    layer, shape = LAYERS[name]
    ordinary, x = layer().double(), torch.randn(shape, dtype=torch.float64, requires_grad=grad)
    faster = speed_up(copy.deepcopy(ordinary))
    assert type(faster) is not type(ordinary)
    with torch.set_grad_enabled(grad):
        ours, torchs = faster(x), ordinary(x)
    torch.testing.assert_close(ours, torchs)
    if grad:
        for y in (ours, torchs):
            y.square().sum().backward()
        for mine, its in zip(faster.parameters(), ordinary.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, its.grad)


def test_the_same_size_is_refused_as_by_torchs() -> None:
    for net in (nn.GroupNorm(6, 6), speed_up(nn.GroupNorm(6, 6))):
        with pytest.raises(ValueError, match="more than 1 value"):
            net(torch.zeros(1, 6, 1, 1))


def test_an_encoder_of_visible_pixels() -> None:
    encoder = SparseEncoder(2, 8, 4)
    faster, frames = speed_up(copy.deepcopy(encoder)), torch.rand(3, 2, 16, 16)
    visible = torch.rand(3, 1, 16, 16) < 0.3
    assert torch.equal(faster(frames, visible), encoder(frames, visible))
    assert all(isinstance(block.conv, SparseConv2d) for block in faster.blocks)


def test_layers_made_to_count_by_their_type_are_counted() -> None:
    """As programs that count operations do: by the exact type, which is torch's until a model is sped up."""
    block = ConvNeXtBlock(8)
    kinds = [type(part) for part in block.children()]
    assert kinds[:3] == [nn.Conv2d, nn.GroupNorm, nn.Conv2d]


def test_importing_and_making_models_speeds_nothing_up() -> None:
    model = plasm.create_model("plasm_mmnist_tiny")
    model.predict(torch.rand(1, 10, 1, 64, 64))
    assert not any(kind.__module__.startswith("plasm.cpu") for kind in classes(model))
