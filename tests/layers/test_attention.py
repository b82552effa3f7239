import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from plasm.layers.attention import attend


def inputs(dtype: torch.dtype) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 6)
    return tuple(torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes)


@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_values_and_gradients_are_the_formulas(dtype: torch.dtype, autocast: bool, scale: float | None) -> None:
    q, k, v = inputs(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = attend(q, k, v, scale)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    grads = torch.autograd.grad(out, (q, k, v), grad)
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    products = exact[0] @ exact[1].mT * (8**-0.5 if scale is None else scale)
    expected = products.softmax(-1) @ exact[2]
    tolerance = 0.01 if autocast or dtype is torch.bfloat16 else 1e-5
    assert out.dtype is (torch.bfloat16 if autocast else dtype)
    for ours, theirs in zip(
        (out, *grads), (expected, *torch.autograd.grad(expected, exact, grad.double())), strict=True
    ):
        assert (ours.double() - theirs).norm() < tolerance * theirs.norm()


def test_only_a_gradient_in_bfloat16_is_computed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    fused = F.scaled_dot_product_attention

    def watched(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
        out = fused(q, k, v, scale=scale)
        seen.append(out.dtype)  # of the result: autocast would make it bfloat16
        return out

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    low, high = inputs(torch.bfloat16), inputs(torch.float32)
    attend(*low)
    with torch.autocast("cpu", torch.bfloat16):
        attend(*low)
    attend(*(x.detach() for x in low))
    with torch.no_grad():
        attend(*low)
    attend(*high)
    assert seen == [torch.float32] * 2 + [torch.bfloat16] * 2 + [torch.float32]
