"""Motion in a clip, found without weights, and frames moved along it: what forecasters of rain call advection.

Shapes: B clips, T frames, K steps, C channels, H x W cells, h x w cells of a coarser grid. Displacements are (x, y) in
cells of the finest grid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .autocast import without_autocast

_LEVELS = (16, 8, 4, 2)
"""How many cells a side become one, from the first look at the clip to the last."""
_STEPS = (2, 1, 1, 1)
"""Steps of Gauss and Newton at each level."""
_WINDOWS = (2.0, 3.0, 4.0, 6.0)
"""At each level, the standard deviation of the window whose cells are taken to move alike."""
_BLUR, _SMOOTH = 0.6, 5.0
"""Standard deviations, in cells of a level: of the frames before gradients are taken, and of the motion afterwards."""
_APART = (1, 2)
"""Frames between those that are compared."""
_FLAT = 1e-4
"""Squared gradients that count as none: where there are no others, the motion stays what it was."""
_LONGEST_STEP = 2.0
"""Of one step, in cells of a level."""


class OpticalFlow(nn.Module):
    """The steady motion that explains a clip best, from a coarse grid to a fine one (Lucas and Kanade, IJCAI 1981).

    At each level, frames that are one and two apart are moved halfway towards each other. What is left between them is
    explained by least squares in a Gaussian window around each cell, and the motion smoothed with weights by how well
    a window determines it: it reaches over dry land from where there is rain. It has no weights, and no gradient.
    """

    reduction = 4
    """Of the grid that it gives; H and W must be multiples of ``size_multiple``."""
    size_multiple = _LEVELS[0]

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        """Find the motion from frame to frame.

        Args:
            frames: (B, T, H, W), T at least 1; of one frame it is 0.

        Returns:
            (B, 2, H / 4, W / 4), float32.

        Raises:
            ValueError: If H or W is no multiple of ``size_multiple``.
        """
        if any(side < 1 or side % self.size_multiple for side in frames.shape[-2:]):
            height, width = frames.shape[-2:]
            raise ValueError(f"height and width must be multiples of {self.size_multiple}, got {height} x {width}")
        with without_autocast(frames):
            frames = frames.float()
            motion = frames.new_zeros(frames.shape[0], 2, *(side // _LEVELS[0] for side in frames.shape[-2:]))
            for level, steps, window in zip(_LEVELS, _STEPS, _WINDOWS, strict=True):
                small = _blur(F.avg_pool2d(frames, level), _BLUR, "replicate")
                if level != _LEVELS[0]:
                    motion = 2 * resize(motion, small)
                for _ in range(steps):
                    motion = _refine(motion, small, window)
            return F.avg_pool2d(motion, self.reduction // _LEVELS[-1]) * _LEVELS[-1]


def trajectories(motion: Tensor, steps: int, reduction: int = OpticalFlow.reduction) -> Tensor:
    """Where what arrives at a cell after 1, 2, ... steps comes from, along a motion (B, 2, h, w) that stays as it is.

    Each step is taken from the end of the one before, with the motion halfway (Germann and Zawadzki, MWR 2002). A cell
    of h x w has ``reduction`` cells of the finest grid.

    Returns:
        (B, K, 2, h, w): the motion from there, so that it came from the cell minus that.
    """
    motion = motion / reduction
    whole, found = torch.zeros_like(motion), []
    for _ in range(steps):
        step = motion
        for _ in range(2):
            step = advect(motion, whole + step / 2)
        whole = whole + step
        found.append(whole * reduction)
    return torch.stack(found, 1)


def advect(x: Tensor, displacement: Tensor) -> Tensor:
    """Move a field: each cell gets what is at the cell minus the displacement, between cells bilinearly.

    The field is (N, C, H, W), the displacement (N, 2, H, W), in its cells. Beyond the edge, the field is as at the
    edge.
    """
    height, width = x.shape[-2:]
    columns = torch.arange(width, device=x.device, dtype=displacement.dtype)
    rows = torch.arange(height, device=x.device, dtype=displacement.dtype)[:, None]
    # From -1 at the outer side of the first cell to 1 at that of the last.
    positions = [
        (2 * (columns - displacement[:, 0]) + 1) / width - 1,
        (2 * (rows - displacement[:, 1]) + 1) / height - 1,
    ]
    return F.grid_sample(x, torch.stack(positions, -1), padding_mode="border", align_corners=False)


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Interpolate (N, C, h, w) bilinearly to the H x W of another tensor."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _refine(motion: Tensor, frames: Tensor, window: float) -> Tensor:
    """One step of Gauss and Newton, and smoothing; ``motion`` is in cells of these frames, (B, T, h, w)."""
    sums = torch.zeros_like(motion[:, :1]).repeat(1, 5, 1, 1)
    for apart in _APART:
        if frames.shape[1] <= apart:
            continue
        half = motion * (apart / 2)
        before, after = advect(frames[:, :-apart], half), advect(frames[:, apart:], -half)
        x, y = (apart * g for g in _gradients((before + after) / 2))
        change = after - before
        products = (x * x, x * y, y * y, x * change, y * change)
        sums = sums + torch.stack([product.sum(1) for product in products], 1)
    xx, xy, yy, xt, yt = _blur(sums, window).split(1, 1)
    xx, yy = xx + _FLAT, yy + _FLAT
    determinant = xx * yy - xy * xy
    step = torch.cat([xy * yt - yy * xt, xy * xt - xx * yt], 1) / determinant
    motion = motion + step.clamp(-_LONGEST_STEP, _LONGEST_STEP)
    certainty = determinant / (xx + yy)
    smooth = _blur(torch.cat([motion * certainty, certainty], 1), _SMOOTH)
    return smooth[:, :2] / smooth[:, 2:].clamp_min(1e-12)


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return (
        (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2,
        (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2,
    )


def _blur(x: Tensor, deviation: float, padding: str = "constant") -> Tensor:
    """Gaussian filter of each channel of (B, C, h, w)."""
    radius = max(1, round(3 * deviation))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype) / deviation) ** 2)
    kernel = kernel / kernel.sum()
    planes = x.flatten(0, 1)[:, None]
    planes = F.conv2d(F.pad(planes, (radius, radius, 0, 0), mode=padding), kernel.view(1, 1, 1, -1))
    planes = F.conv2d(F.pad(planes, (0, 0, radius, radius), mode=padding), kernel.view(1, 1, -1, 1))
    return planes[:, 0].unflatten(0, x.shape[:2])
