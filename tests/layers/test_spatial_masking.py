import math

import numpy as np
import pytest
import torch
from torch import nn

from plasm.layers import SpatialMasking


def reference(layer: SpatialMasking, x: np.ndarray) -> np.ndarray:
    """Section III-F in NumPy, frame by frame, entry by entry."""
    weights = {name: p.detach().double().numpy() for name, p in layer.named_parameters()}
    n, c, h, w = x.shape
    out = np.zeros_like(x)
    for i in range(n):
        pooled = x[i].reshape(c, -1).mean(1)
        q = weights["query.weight"][:, :, 0, 0] @ pooled + weights["query.bias"]
        k = weights["key.weight"][:, :, 0, 0] @ pooled + weights["key.bias"]
        a = np.outer(q, k) / math.sqrt(c)
        masked = np.zeros(c * c, bool)
        masked[np.argsort(-a.flatten(), kind="stable")[: math.floor(layer.mask_ratio * c * c)]] = True
        masked = masked.reshape(c, c)
        padded = np.pad(x[i], ((0, 0), (1, 1), (1, 1)))
        v = np.zeros((c, h, w))
        for dy in range(3):
            for dx in range(3):
                v += weights["value.weight"][:, 0, dy, dx, None, None] * padded[:, dy : dy + h, dx : dx + w]
        v += weights["value.bias"][:, None, None]
        for row in range(c):
            kept = ~masked[row]
            if kept.any():
                e = np.where(kept, np.exp(a[row] - a[row][kept].max()), 0)
                out[i, row] = np.tensordot(e / e.sum(), v, 1)
    return out


def double(dim: int, ratio: float) -> SpatialMasking:
    layer = SpatialMasking(dim, ratio).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.25, 0.6, 1.0])
def test_forward_is_the_formula(ratio: float) -> None:
    layer = double(8, ratio)
    x = torch.randn(3, 8, 5, 4, dtype=torch.float64)
    np.testing.assert_allclose(layer(x).detach().numpy(), reference(layer, x.numpy()), atol=1e-12)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_gradient_is_that_of_the_formula(ratio: float) -> None:
    layer = double(4, ratio)
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    probe = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    (layer(x) * probe).sum().backward()

    def numeric(tensor: torch.Tensor) -> torch.Tensor:
        """Central differences of the NumPy formula."""
        gradient, step = torch.zeros_like(tensor), 1e-6
        flat, out = tensor.data.view(-1), gradient.view(-1)
        for i in range(len(flat)):
            kept = flat[i].item()
            values = []
            for sign in (1, -1):
                flat[i] = kept + sign * step
                values.append((reference(layer, x.detach().numpy()) * probe.numpy()).sum())
            flat[i] = kept
            out[i] = (values[0] - values[1]) / (2 * step)
        return gradient

    assert x.grad is not None
    torch.testing.assert_close(x.grad, numeric(x), atol=1e-6, rtol=1e-5)
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, numeric(parameter), atol=1e-6, rtol=1e-5, msg=name)


def test_rows_masked_whole_give_zeros_and_no_nan() -> None:
    layer = SpatialMasking(16, 0.5).double()
    with torch.no_grad():
        # Keys of one sign: the highest entries of q k^T are the rows of the highest queries.
        layer.key.weight.zero_()
        layer.key.bias.fill_(1.0)
        layer.query.weight.zero_()
        layer.query.bias.copy_(torch.arange(16.0))
    x = torch.randn(2, 16, 4, 4, dtype=torch.float64, requires_grad=True)
    out = layer(x)
    out.square().sum().backward()
    assert (out[:, 8:] == 0).all()
    assert (out[:, :8] != 0).any()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_exactly_the_share_is_masked_under_autocast_and_with_ties() -> None:
    layer = SpatialMasking(64, 0.1)
    attention = []
    layer.value.register_forward_hook(lambda module, args, out: out.zero_())
    x = torch.randn(4, 64, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        attention.append(layer._masked_attention(x.bfloat16()))
    layer.key.weight.data.zero_()  # every entry of a row ties
    attention.append(layer._masked_attention(x))
    for a in attention:
        assert a.dtype == torch.float32
        assert (a == 0).flatten(1).sum(1).tolist() == [409] * 4


def test_frames_do_not_see_each_other() -> None:
    layer = SpatialMasking(8)
    x = torch.randn(3, 8, 4, 4)
    torch.testing.assert_close(layer(x)[1:2], layer(x[1:2]))


def test_a_ratio_outside_the_range_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        SpatialMasking(8, 1.5)
