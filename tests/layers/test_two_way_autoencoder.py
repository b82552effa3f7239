import pytest
import torch

from plasm.layers import CouplingBlock, TwoWayAutoencoder
from plasm.layers.two_way_autoencoder import unshuffle_pixels


@pytest.mark.parametrize(("chans", "depths", "kernel_frames"), [(1, (4, 5, 3), 3), (3, (1, 2), 1)])
def test_nothing_is_lost(chans: int, depths: tuple[int, ...], kernel_frames: int) -> None:
    torch.manual_seed(0)
    coder = TwoWayAutoencoder(chans, depths, kernel_frames)
    x = torch.rand(2, chans, 3, 16, 24)
    a, b = coder(x)
    places = (3, 16 // coder.reduction, 24 // coder.reduction)
    assert a.shape == b.shape == (2, coder.num_features, *places)
    assert a.numel() + b.numel() == x.numel()
    torch.testing.assert_close(coder.inverse(a, b), x, rtol=0, atol=1e-4)
    # To rounding: in double precision eight digits more.
    coder, x = coder.double(), x.double()
    torch.testing.assert_close(coder.inverse(*coder(x)), x, rtol=0, atol=1e-12)
    # Any features are those of some frames.
    a, b = torch.randn(2, 1, coder.num_features, *places, dtype=torch.float64)
    torch.testing.assert_close(coder(coder.inverse(a, b)), (a, b), rtol=0, atol=1e-10)


def test_a_block_adds_to_one_half_what_the_other_gives() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 1, 2, 3, 4, 4)
    same, halving = CouplingBlock(2, 2), CouplingBlock(2, 8)
    torch.testing.assert_close(same(a, b), (b, a + same.residual(b)))
    torch.testing.assert_close(halving(a, b), (unshuffle_pixels(b), unshuffle_pixels(a) + halving.residual(b)))


def test_the_published_model_has_36_convolutions() -> None:
    coder = TwoWayAutoencoder(1, device="meta")
    assert sum(p.ndim == 4 for p in coder.parameters()) == 36
    assert (coder.num_features, coder.reduction) == (32, 8)
    for depths in ((), (2, 0)):
        with pytest.raises(ValueError, match="a number of blocks, 1 or more"):
            TwoWayAutoencoder(1, depths)
