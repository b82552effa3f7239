import math

import pytest
import torch

from plasm.layers import pixel_mask_from_keys, random_pixel_mask


@pytest.mark.parametrize("ratio", [0.0, 0.29, 0.5, 0.96, 1.0])
@pytest.mark.parametrize(("height", "width", "patch"), [(64, 64, 1), (10, 10, 1), (13, 7, 4), (64, 64, 4)])
def test_exactly_the_share_of_patches_is_masked(ratio: float, height: int, width: int, patch: int) -> None:
    visible = random_pixel_mask(3, height, width, ratio, patch)
    assert visible.shape == (3, 1, height, width)
    assert visible.dtype == torch.bool
    rows, columns = math.ceil(height / patch), math.ceil(width / patch)
    corners = visible[..., ::patch, ::patch]
    assert corners.shape[-2:] == (rows, columns)
    assert (~corners).sum((1, 2, 3)).tolist() == [round(ratio * 10000) * rows * columns // 10000] * 3
    grown = corners.repeat_interleave(patch, 2).repeat_interleave(patch, 3)[..., :height, :width]
    assert torch.equal(visible, grown)


def test_frames_differ_and_a_generator_repeats() -> None:
    first, again = (random_pixel_mask(2, 16, 16, 0.5, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])


def test_every_pixel_is_masked_equally_often() -> None:
    share = random_pixel_mask(4000, 4, 4, 0.75).float().mean(0)
    assert torch.allclose(share, torch.full_like(share, 0.25), atol=0.04)


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\].*1\.5"):
        random_pixel_mask(1, 4, 4, 1.5)
    with pytest.raises(ValueError, match="positive"):
        random_pixel_mask(1, 4, 4, 0.5, patch_size=0)


def test_keys_of_another_number_of_patches_are_no_mask() -> None:
    """Those of 64 patches were eight masks of 16 in which 16 pixels in all were seen."""
    for shape in ((2, 64), (2, 4, 4), (32,)):
        with pytest.raises(ValueError, match=r"keys are \(N, 16\), one for each of 4x4 patches"):
            pixel_mask_from_keys(torch.rand(shape), 4, 4, 0.5)
    with pytest.raises(ValueError, match="4x4 pixels in patches of 0"):
        pixel_mask_from_keys(torch.rand(2, 16), 4, 4, 0.5, 0)
