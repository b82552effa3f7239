import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plasm.layers import ConvBlock, PairwiseLayerAttention

FORMS = [
    ("global", "cosine", 1),
    ("global", "cosine", 2),
    ("global", "sigmoid", 1),
    ("global", "sigmoid", 2),
    ("global", "softmax", 4),
    ("channel", "sigmoid", 1),
    ("channel", "sigmoid", 2),
    ("spatial", "sigmoid", 1),
    ("spatial", "sigmoid", 2),
]


def grouped_1x1(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A grouped 1x1 convolution of (C, positions), one group after the other."""
    size = conv.out_channels // conv.groups
    parts = [conv.weight[g * size : (g + 1) * size, :, 0, 0] @ x[g * size : (g + 1) * size] for g in range(conv.groups)]
    assert conv.bias is not None
    return torch.cat(parts) + conv.bias[:, None]


def value_path(layer: PairwiseLayerAttention, high: Tensor) -> Tensor:
    """Eq. 2 and Eq. 3 with torch's functions, from the paper."""
    block, last = layer.value[0], layer.value[1]
    dim = high.shape[0]
    y = F.conv2d(high[None], block.dwconv.weight, block.dwconv.bias, padding=3, groups=dim)
    grouped = y.view(8, -1)
    grouped = (grouped - grouped.mean(1, keepdim=True)) / (grouped.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    y = grouped.view_as(y) * block.norm.weight[:, None, None] + block.norm.bias[:, None, None]
    y = torch.einsum("oi,bihw->bohw", block.pwconv1.weight[:, :, 0, 0], y) + block.pwconv1.bias[:, None, None]
    y = torch.where(y > 0, y, 0.2 * y)
    y = torch.einsum("oi,bihw->bohw", block.pwconv2.weight[:, :, 0, 0], y) + block.pwconv2.bias[:, None, None]
    y = high[None] + y
    return F.conv2d(y, last.weight, last.bias, padding=1, groups=dim)[0]


def reference(layer: PairwiseLayerAttention, low: Tensor, high: Tensor) -> Tensor:
    """Section III-D, clip by clip and head by head."""
    outs = []
    for one_low, one_high in zip(low, high, strict=True):
        dim, height, width = one_low.shape
        d = dim // layer.num_heads
        places_low, places_high = one_low.reshape(dim, -1), one_high.reshape(dim, -1)
        if layer.attention in ("global", "channel"):
            places_low, places_high = places_low.mean(1, keepdim=True), places_high.mean(1, keepdim=True)
        q, k = grouped_1x1(layer.query, places_low), grouped_1x1(layer.key, places_high)
        v = value_path(layer, one_high).reshape(dim, -1)
        heads, scores = [], []
        for n in range(layer.num_heads):
            part = slice(n * d, (n + 1) * d)
            qn, kn, vn = q[part], k[part], v[part]
            if layer.attention == "global":
                score = (qn * kn).sum() / math.sqrt(d)
                if layer.score == "cosine":
                    cosine = (qn * kn).sum() / (qn.norm() * kn.norm())
                    score = layer.logit_scale[n] * cosine + layer.logit_bias[n]
                scores.append(score)
                heads.append(vn)
            elif layer.attention == "channel":
                heads.append(torch.softmax(qn @ kn.T / math.sqrt(d), 1) @ vn)
            else:
                heads.append((torch.softmax(qn.T @ kn / math.sqrt(d), 1) @ vn.T).T)
        if layer.attention == "global":
            s = torch.stack(scores)
            s = torch.softmax(s, 0) if layer.score == "softmax" else 1 / (1 + torch.exp(-s))
            heads = [s[n] * heads[n] for n in range(layer.num_heads)]
        outs.append(torch.cat(heads).view(dim, height, width))
    return torch.stack(outs)


@pytest.mark.parametrize(("attention", "score", "heads"), FORMS)
def test_forward_and_gradient_are_those_of_the_formula(attention: str, score: str, heads: int) -> None:
    layer = PairwiseLayerAttention(16, heads, attention, score).double()  # type: ignore[arg-type]
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    low, high = (torch.randn(2, 16, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    inputs = [low, high, *layer.parameters()]
    out, expected = layer(low, high), reference(layer, low, high)
    torch.testing.assert_close(out, expected, atol=1e-10, rtol=1e-8)
    probe = torch.randn_like(out)
    for mine, theirs in zip(
        torch.autograd.grad((out * probe).sum(), inputs),
        torch.autograd.grad((expected * probe).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=1e-7)


def test_query_and_key_are_grouped_by_head_and_query_sees_low() -> None:
    layer = PairwiseLayerAttention(16, 4)
    assert layer.query.groups == layer.key.groups == 4
    low, high, other = (torch.randn(1, 16, 4, 4) for _ in range(3))
    seen: dict[str, Tensor] = {}
    layer.query.register_forward_hook(lambda module, args, out: seen.update(query=args[0]))
    layer.key.register_forward_hook(lambda module, args, out: seen.update(key=args[0]))
    layer(low, high)
    torch.testing.assert_close(seen["query"], low.mean((2, 3), keepdim=True))
    torch.testing.assert_close(seen["key"], high.mean((2, 3), keepdim=True))
    assert not torch.allclose(layer(low, high), layer(other, high))


def test_none_keeps_the_value_path_alone() -> None:
    layer = PairwiseLayerAttention(16, attention="none")
    low, high = torch.randn(2, 16, 4, 4), torch.randn(2, 16, 4, 4)
    assert {name.split(".")[0] for name, _ in layer.named_parameters()} == {"value"}
    torch.testing.assert_close(layer(low, high), layer.value(high))


def test_residual_adds_the_high_layer() -> None:
    layer = PairwiseLayerAttention(16, residual=True)
    low, high = torch.randn(2, 16, 4, 4), torch.randn(2, 16, 4, 4)
    with_residual = layer(low, high)
    layer.residual = False
    torch.testing.assert_close(with_residual, high + layer(low, high))


def test_the_plain_convolution_of_table_x() -> None:
    layer = PairwiseLayerAttention(16, block="conv7x7")
    assert isinstance(layer.value[0], ConvBlock)
    assert layer.value[0].conv.weight.shape == (16, 16, 7, 7)
    assert layer(torch.randn(1, 16, 9, 9), torch.randn(1, 16, 9, 9)).shape == (1, 16, 9, 9)


@pytest.mark.parametrize("scale", [0.0, 5e4])
def test_the_default_score_in_half_precision_is_that_of_float32(scale: float) -> None:
    """Of features that are all zero, and of those whose norm float16 cannot hold."""
    torch.manual_seed(0)
    layer = PairwiseLayerAttention(32, 2)
    for projection in (layer.query, layer.key):
        nn.init.dirac_(projection.weight, groups=2)
    low, high = (scale * torch.rand(2, 32, 4, 4) for _ in range(2))
    expected = layer.scores(low, high)
    torch.testing.assert_close(layer.half().scores(low.half(), high.half()).float(), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e4])
def test_the_default_score_is_bounded_whatever_the_weights(scale: float) -> None:
    """The authors' score of the same weights is 0 or 1 for good."""
    torch.manual_seed(0)
    layer = PairwiseLayerAttention(16, 2)
    assert layer.score == "cosine"
    for projection in (layer.query, layer.key):
        nn.init.normal_(projection.weight, std=scale)
    low, high = torch.randn(2, 8, 16, 4, 4).requires_grad_()
    scores = layer.scores(low, high)
    # 4 is where the scale starts: the sigmoid of a cosine in [-1, 1] times that.
    assert 0.0179 < scores.min() < scores.max() < 0.9821
    assert (scores.std(0) > 0.01).all()
    assert torch.autograd.grad(scores.sum(), layer.logit_scale)[0].abs().min() > 0


def test_the_default_score_tells_clips_apart_under_autocast() -> None:
    """Clips that differ by a thousandth have scores of their own; bf16 would round them to one."""
    torch.manual_seed(0)
    layer = PairwiseLayerAttention(16, 2)
    low = torch.randn(1, 16, 4, 4) + 1e-3 * torch.randn(4, 16, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        scores = layer.scores(low, low.roll(1, 1))
    torch.testing.assert_close(scores, layer.scores(low, low.roll(1, 1)), rtol=0, atol=0)
    assert all(len(set(head.tolist())) == 4 for head in scores.T)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 3}, "3 heads for 16"),
        ({"num_heads": 0}, "0 heads"),
        ({"num_heads": 1, "score": "softmax"}, "over heads"),
        ({"attention": "gate"}, "'global'.*'gate'"),
        ({"score": "tanh"}, "'cosine'.*'tanh'"),
        ({"block": "resnet"}, "'convnext'.*'resnet'"),
    ],
)
def test_errors_say_what_is_wrong(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PairwiseLayerAttention(16, **arguments)  # type: ignore[arg-type]
