from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from plasm.data import clip_batches


class Items(Dataset[Tensor]):
    """A clip's only value is its index."""

    def __getitem__(self, index: int) -> Tensor:
        return torch.full((2, 1, 1, 1), float(index))


class Listed(Items):
    """As torch fetches several."""

    def __getitem__(self, index: int) -> Tensor:
        raise NotImplementedError

    def __getitems__(self, indices: list[int]) -> list[Tensor]:
        return [Items()[index] for index in indices]


class Whole(Listed):
    def __getitems__(self, indices: list[int]) -> list[Tensor]:
        raise NotImplementedError

    def get_batch(self, indices: list[int]) -> Tensor:
        return torch.stack([Items()[index] for index in indices])


@pytest.mark.parametrize(("kind", "workers"), [(Items, 0), (Items, 1), (Listed, 0), (Whole, 0)])
def test_batches_are_of_their_indices_in_order(kind: Any, workers: int) -> None:
    batches = list(clip_batches(kind(), [[3, 1], [2]], workers))
    assert [batch[:, 1, 0, 0, 0].tolist() for batch in batches] == [[3, 1], [2]]
