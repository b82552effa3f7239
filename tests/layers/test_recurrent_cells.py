"""Each cell against its equations, written out step by step."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from plasm.layers import (
    CausalLSTMCell,
    ConvLSTMCell,
    Eidetic3DLSTMCell,
    GradientHighwayUnit,
    MAUCell,
    MIMMemory,
    PhyCell,
    ReversiblePredictiveModule,
    SpatioTemporalLSTMCell,
    STAMCell,
)

D, SIZE = 3, (4, 5)


def states(*names: str, dim: int = D) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {name: torch.randn(2, dim, *SIZE) for name in names}


def gates(conv: nn.Module, x: Tensor, count: int) -> tuple[Tensor, ...]:
    y = F.conv2d(x, conv.conv.weight, conv.conv.bias, padding=1)
    return (y if conv.norm is None else conv.norm(y)).chunk(count, 1)


@pytest.mark.parametrize("size", [None, SIZE])
def test_convlstm(size: tuple[int, int] | None) -> None:
    torch.manual_seed(0)
    cell, s = ConvLSTMCell(2, D, 3, size), states("h", "c")
    x = torch.randn(2, 2, *SIZE)
    i, f, g, o = (a + b for a, b in zip(gates(cell.conv_x, x, 4), gates(cell.conv_h, s["h"], 4), strict=True))
    c = f.sigmoid() * s["c"] + i.sigmoid() * g.tanh()
    h, found = cell(x, (s["h"], s["c"]))
    torch.testing.assert_close(found, c)
    torch.testing.assert_close(h, o.sigmoid() * c.tanh())


@pytest.mark.parametrize("size", [None, SIZE])
def test_st_lstm(size: tuple[int, int] | None) -> None:
    torch.manual_seed(0)
    cell, s = SpatioTemporalLSTMCell(2, D, 3, size), states("h", "c", "m")
    x = torch.randn(2, 2, *SIZE)
    i_x, f_x, g_x, ii_x, ff_x, gg_x, o_x = gates(cell.conv_x, x, 7)
    i_h, f_h, g_h, o_h = gates(cell.conv_h, s["h"], 4)
    i_m, f_m, g_m = gates(cell.conv_m, s["m"], 3)
    c = (f_x + f_h + 1).sigmoid() * s["c"] + (i_x + i_h).sigmoid() * (g_x + g_h).tanh()
    m = (ff_x + f_m + 1).sigmoid() * s["m"] + (ii_x + i_m).sigmoid() * (gg_x + g_m).tanh()
    o = (o_x + o_h + gates(cell.conv_o, torch.cat([c, m], 1), 1)[0]).sigmoid()
    wanted = (o * cell.conv_last(torch.cat([c, m], 1)).tanh(), c, m)
    for one, other in zip(cell(x, (s["h"], s["c"]), s["m"]), wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_causal_lstm() -> None:
    torch.manual_seed(0)
    cell, s = CausalLSTMCell(2, D, 3), states("h", "c", "m")
    x = torch.randn(2, 2, *SIZE)
    i_x, f_x, g_x, ii_x, ff_x, gg_x, o_x = gates(cell.conv_x, x, 7)
    i_h, f_h, g_h, o_h = gates(cell.conv_h, s["h"], 4)
    i_c, f_c, g_c = gates(cell.conv_c, s["c"], 3)
    c = (f_x + f_h + f_c + 1).sigmoid() * s["c"] + (i_x + i_h + i_c).sigmoid() * (g_x + g_h + g_c).tanh()
    i_m, f_m, m_m = gates(cell.conv_m, s["m"], 3)
    i_n, g_n, f_n, o_n = gates(cell.conv_c2m, c, 4)
    m = (ff_x + f_m + f_n + 1).sigmoid() * m_m.tanh() + (ii_x + i_m + i_n).sigmoid() * (gg_x + g_n).tanh()
    o = (o_x + o_h + o_n + gates(cell.conv_om, m, 1)[0]).tanh()
    wanted = (o * cell.conv_last(torch.cat([c, m], 1)).tanh(), c, m)
    for one, other in zip(cell(x, (s["h"], s["c"]), s["m"]), wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_gradient_highway() -> None:
    torch.manual_seed(0)
    unit, s = GradientHighwayUnit(D, 3), states("x", "z")
    for part in (unit.conv_x, unit.conv_z):
        assert part.conv.weight.abs().max() <= 0.001
        nn.init.normal_(part.conv.weight)
    p, u = (a + b for a, b in zip(gates(unit.conv_x, s["x"], 2), gates(unit.conv_z, s["z"], 2), strict=True))
    torch.testing.assert_close(unit(s["x"], s["z"]), u.sigmoid() * p.tanh() + (1 - u.sigmoid()) * s["z"])


def test_mim_memory() -> None:
    torch.manual_seed(0)
    cell, s = MIMMemory(D, D, SIZE, 3), states("x", "h", "c")
    nn.init.normal_(cell.weight_c)
    nn.init.normal_(cell.weight_o)
    i, g, f, o = (a + b for a, b in zip(gates(cell.conv_x, s["x"], 4), gates(cell.conv_h, s["h"], 4), strict=True))
    i, f = (i + cell.weight_c[:D] * s["c"]).sigmoid(), (f + cell.weight_c[D:] * s["c"] + 1).sigmoid()
    c = f * s["c"] + i * g.tanh()
    h, found = cell(s["x"], s["h"], s["c"], s["x"])
    torch.testing.assert_close(found, c)
    torch.testing.assert_close(h, (o + cell.weight_o * c).sigmoid() * c.tanh())


@pytest.mark.parametrize("size", [None, SIZE])
def test_no_state_is_a_state_of_zeros(size: tuple[int, int] | None) -> None:
    torch.manual_seed(0)
    x, zeros = torch.randn(2, D, *SIZE), torch.zeros(2, D, *SIZE)
    norm = size is not None
    cells = [(ConvLSTMCell(D, D, 3, size), ((zeros, zeros),))]
    cells += [(kind(D, D, 3, size), ((zeros, zeros), zeros)) for kind in (SpatioTemporalLSTMCell, CausalLSTMCell)]
    cells += [(GradientHighwayUnit(D, 3, size), (zeros,))]
    for cell, args in cells:
        for part in cell.modules():
            if isinstance(part, nn.LayerNorm):
                nn.init.normal_(part.bias)
        one, other = cell(x), cell(x, *args)
        for a, b in zip(one, other, strict=True) if isinstance(one, tuple) else [(one, other)]:
            torch.testing.assert_close(a, b)
    memory = MIMMemory(D, D, SIZE, 3, norm)
    for a, b in zip(memory(None, None, None, x), memory(zeros, zeros, zeros, x), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("mode", ["normal", "residual"])
def test_mau(mode: str) -> None:
    torch.manual_seed(0)
    cell, s = MAUCell(D, D, SIZE, 3, mode), states("t", "s")
    past_t, past_s = [torch.randn(2, D, *SIZE) for _ in range(2)], [torch.randn(2, D, *SIZE) for _ in range(2)]
    query = gates(cell.conv_s_next, s["s"], 1)[0]
    scores = torch.stack([(each * query).sum((1, 2, 3)) for each in past_s]) / math.sqrt(D * SIZE[0] * SIZE[1])
    weight = scores.softmax(0)
    attended = sum(w[:, None, None, None] * each for w, each in zip(weight, past_t, strict=True))
    keep = gates(cell.conv_t_next, s["t"], 1)[0].sigmoid()
    g_t, t_t, t_s = gates(cell.conv_t, keep * s["t"] + (1 - keep) * attended, 3)
    g_s, s_t, s_s = gates(cell.conv_s, s["s"], 3)
    t = g_t.sigmoid() * t_t + (1 - g_t.sigmoid()) * s_t
    new_s = g_s.sigmoid() * s_s + (1 - g_s.sigmoid()) * t_s + (s["s"] if mode == "residual" else 0)
    found_t, found_s = cell(s["t"], s["s"], past_t, past_s)
    torch.testing.assert_close(found_t, t)
    torch.testing.assert_close(found_s, new_s)


def test_phycell() -> None:
    torch.manual_seed(0)
    cell, x, h = PhyCell(D), torch.randn(2, D, *SIZE), torch.randn(2, D, *SIZE)
    predicted = h + cell.combine(cell.norm(cell.derivatives(h)))
    k = cell.gate(torch.cat([x, h], 1)).sigmoid()
    torch.testing.assert_close(cell(x, h), predicted + k * (x - predicted))
    for kernel_size in (3, 14):
        with pytest.raises(ValueError, match=f"odd, .* seven groups.* got {kernel_size}"):
            PhyCell(D, kernel_size)


@pytest.mark.parametrize("as_openstl", [False, True])
def test_recall_is_attention_over_the_cells_so_far(as_openstl: bool) -> None:
    torch.manual_seed(0)
    cell = Eidetic3DLSTMCell(2, 4, SIZE, kernel_size=3, as_openstl=as_openstl)
    query, first, second = (torch.randn(2, 4, 2, *SIZE) for _ in range(3))

    def rows(x: Tensor) -> Tensor:
        return x.reshape(2, -1, 4) if as_openstl else x.permute(0, 2, 3, 4, 1).reshape(2, -1, 4)

    keys = torch.cat([rows(first), rows(second)], 1)
    attended = (rows(query) @ keys.mT).softmax(-1) @ keys
    wanted = attended.view(query.shape) if as_openstl else attended.view(2, 2, *SIZE, 4).permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(cell._recall(query, torch.cat([cell._rows(first), cell._rows(second)], 1)), wanted)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        # An error where it cannot be.
        cell._recall(query, cell._rows(first))
    x = torch.randn(2, 2, 2, *SIZE)
    state, m = cell(x)
    assert (m == 0).all() if as_openstl else (m != 0).any()
    assert state[2].shape == (2, 2 * 2 * SIZE[0] * SIZE[1], 4)


def test_reversible_predictive_module() -> None:
    torch.manual_seed(0)
    cell = ReversiblePredictiveModule(D).double()
    a, b, h, c, m = torch.randn(5, 2, D, 3, *SIZE, dtype=torch.float64).unbind()

    def conv(part: nn.Module, *inputs: Tensor) -> Tensor:
        """Written with a kernel of five dimensions, cut out of the weights frame by frame."""
        x = torch.cat(inputs, 1)
        frames = part.weight.chunk(part.weight.shape[1] // x.shape[1], 1)
        side = part.weight.shape[-1] // 2
        return F.conv3d(x, torch.stack(frames, 2), part.bias, padding=(len(frames) // 2, side, side))

    i, f, g = conv(cell.conv_c, a, h, c).chunk(3, 1)
    new_c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    i, f, g = conv(cell.conv_m, a, m, new_c).chunk(3, 1)
    new_m = f.sigmoid() * m + i.sigmoid() * g.tanh()
    o = conv(cell.conv_o, a, h, new_c, new_m).sigmoid()
    new_h = o * conv(cell.conv_last, new_c, new_m).tanh()
    gate = conv(cell.attention[2], conv(cell.attention[0], new_h).relu()).sigmoid()
    found, state, memory = cell(a, b, (h, c), m)
    torch.testing.assert_close((found, *state, memory), ((1 - gate) * b + gate * new_h, new_h, new_c, new_m))
    torch.testing.assert_close(cell.inverse(a, found, (h, c), m), b)
    zeros = torch.zeros_like(a)
    torch.testing.assert_close(cell(a, b), cell(a, b, (zeros, zeros), zeros))


@pytest.mark.parametrize("as_paper", [False, True])
def test_stam(as_paper: bool) -> None:
    torch.manual_seed(0)
    cell = STAMCell(2, D, (2, *SIZE), as_paper=as_paper)
    x, h, *past = torch.randn(7, 2, D, 2, *SIZE).unbind(0)
    x, past_c, past_m = x[:, :2], past[:3], past[3:]

    def attend(query: Tensor, memories: list[Tensor]) -> Tensor:
        return sum((query * m).exp() * m for m in memories) / sum((query * m).exp() for m in memories)

    i_x, f_x, g_x, ii_x, ff_x, gg_x, o_x = cell.conv_x(x).chunk(7, 1)
    i_h, f_h, g_h, o_h = cell.conv_h(h).chunk(4, 1)
    i_m, f_m, g_m = cell.conv_m(past_m[-1]).chunk(3, 1)
    f, ff = (f_x + f_h + 1).sigmoid(), (ff_x + f_m + 1).sigmoid()
    c = f * attend(f, past_c if as_paper else past_c[-1:]) + (i_x + i_h).sigmoid() * (g_x + g_h).tanh()
    m = ff * attend(ff, past_m) + (ii_x + i_m).sigmoid() * (gg_x + g_m).tanh()
    both = torch.cat([c, m], 1)
    wanted = ((o_x + o_h + cell.conv_o(both)).sigmoid() * cell.conv_last(both).tanh(), c, m)
    for one, other in zip(cell(x, h, past_c, past_m), wanted, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mau_attends_in_half_precision_as_in_single(dtype: torch.dtype) -> None:
    """Scores are sums over channels and positions, which half precision cannot tell apart, and float16 cannot hold."""
    torch.manual_seed(0)
    cell, s = MAUCell(8, 8, (64, 64), 1), 2 * torch.randn(1, 8, 64, 64)
    past_s = [(s * (1 + 0.002 * step)).to(dtype) for step in range(5)]
    past_t = [torch.randn(1, 8, 64, 64).to(dtype) for _ in range(5)]
    projected = cell.conv_s(s).to(dtype), s.to(dtype)
    inputs = past_t[0], past_s[0], projected, past_t, past_s
    expected = cell.step(
        *([x.float() for x in each] if not isinstance(each, Tensor) else each.float() for each in inputs)
    )
    half = cell.to(dtype).step(*inputs)
    for frames, wanted in zip(half, expected, strict=True):
        assert frames.dtype is dtype
        assert (frames - wanted).square().mean().sqrt() < 0.02 * wanted.square().mean().sqrt()
