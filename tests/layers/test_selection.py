import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plasm.layers.selection import floor_ratio, top_mask


def test_floor_ratio_takes_the_decimal_that_was_written() -> None:
    assert int(0.29 * 100) == 28  # what it must not do
    assert floor_ratio(0.29, 100) == 29
    assert floor_ratio(0.1, 64 * 64) == 409
    assert floor_ratio(0.0, 7) == 0
    assert floor_ratio(1.0, 7) == 7


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_floor_ratio_refuses_what_is_no_ratio(ratio: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        floor_ratio(ratio, 10)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.data())
def test_top_mask_marks_the_first_of_a_stable_sort(row: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(row)))
    expected = sorted(range(len(row)), key=lambda i: (-row[i], i))[:count]
    marked = top_mask(torch.tensor([row], dtype=torch.float32), count)
    assert marked[0].nonzero().flatten().tolist() == sorted(expected)
