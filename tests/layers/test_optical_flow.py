import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from plasm.layers import OpticalFlow
from plasm.layers.optical_flow import advect, trajectories


def texture(size: int) -> Tensor:
    """Showers of several sizes on dry ground, (1, 1, size, size)."""
    drawn = torch.rand(1, 1, size // 8, size // 8, generator=torch.Generator().manual_seed(0))
    return (F.interpolate(drawn, size=(size, size), mode="bicubic") - 0.4).clamp(0)


def even(x: float, y: float, size: int) -> Tensor:
    return torch.tensor([x, y]).view(1, 2, 1, 1).expand(1, 2, size, size)


def moving(x: float, y: float, frames: int = 6, size: int = 128) -> Tensor:
    """(1, T, size, size), cut out of a larger field."""
    whole = texture(3 * size)
    clip = torch.cat([advect(whole, even(x * t, y * t, 3 * size)) for t in range(frames)], 1)
    return clip[..., size : 2 * size, size : 2 * size]


@pytest.mark.parametrize("step", [(3.0, -2.0), (0.5, 0.0), (-7.0, 5.0), (12.0, 9.0), (0.0, 0.0)])
def test_finds_the_motion_of_a_moving_field(step: tuple[float, float]) -> None:
    motion = OpticalFlow()(moving(*step))
    assert motion.shape == (1, 2, 32, 32)
    torch.testing.assert_close(motion, even(*step, 32), atol=0.1 + 0.1 * max(map(abs, step)), rtol=0)
    torch.testing.assert_close(
        motion.mean((0, 2, 3)), torch.tensor(step), atol=0.05 + 0.02 * max(map(abs, step)), rtol=0
    )


@pytest.mark.parametrize("size", [(18, 32), (8, 16), (32, 0)])
def test_sizes_that_it_cannot_halve_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"must be multiples of 16, got {size[0]} x {size[1]}"):
        OpticalFlow()(torch.zeros(1, 2, *size))


def test_two_motions_at_once() -> None:
    left, right = moving(2.0, 0.0), moving(-2.0, 1.0)
    motion = OpticalFlow()(torch.cat([left, right], -1))
    torch.testing.assert_close(motion[..., 8:24, 8:20], even(2.0, 0.0, 16)[..., :12], atol=0.3, rtol=0)
    torch.testing.assert_close(motion[..., 8:24, 44:56], even(-2.0, 1.0, 16)[..., :12], atol=0.3, rtol=0)


def test_dry_land_and_single_frames_stand_still() -> None:
    assert OpticalFlow()(torch.zeros(2, 6, 64, 64)).abs().max() == 0
    assert OpticalFlow()(moving(3, 1, frames=1)).abs().max() == 0


def test_the_motion_reaches_over_dry_land() -> None:
    clip = torch.zeros(1, 6, 128, 128)
    clip[..., 32:96, 32:96] = moving(2.0, -1.0)[..., 32:96, 32:96]
    motion = OpticalFlow()(clip)
    assert motion[0, 0, 16, 2:30].min() > 0.5
    assert motion.isfinite().all()


def test_a_whole_step_moves_cells_as_they_are() -> None:
    field = texture(64)
    moved = advect(field, even(3.0, -2.0, 64))
    torch.testing.assert_close(moved[..., :62, 3:], field[..., 2:, :61], atol=1e-5, rtol=0)
    torch.testing.assert_close(advect(field, even(0.0, 0.0, 64)), field, atol=1e-5, rtol=0)


def test_trajectories_follow_a_rotation() -> None:
    """What turns by .1 a step is after 12 steps still at its radius: straight lines would leave it."""
    size = 65
    middle = torch.arange(size) - size // 2.0
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    turn = 0.1
    motion = turn * torch.stack([-y, x])[None]
    came = trajectories(motion, 12, reduction=1)[0, -1]
    for at in ((10, 0), (0, -12), (8, 8)):
        here = torch.tensor([float(at[0]), float(at[1])])
        source = here - came[:, size // 2 + at[1], size // 2 + at[0]]
        angle = torch.tensor(-12 * turn)
        rotated = torch.stack(
            [here[0] * angle.cos() - here[1] * angle.sin(), here[0] * angle.sin() + here[1] * angle.cos()]
        )
        torch.testing.assert_close(source, rotated, atol=0.35, rtol=0)
