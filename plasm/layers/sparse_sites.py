"""Positions of the visible sites of a batch of frames, and the pairs of them that a kernel joins.

Shape legend
    N - frames            H, W - height, width of the dense grid
    n - visible sites     K - kernel taps
    P - pairs of visible sites that a tap joins, over all taps
"""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class PairTable(NamedTuple):
    """The pairs of rows that a kernel joins, sorted by tap and within a tap by output row.

    `inputs`, `outputs` (P,): the rows of each pair. `counts` (K,): pairs of each tap, on the CPU, since they become
    slice bounds. `output_pairs` (P,): the pairs again, sorted by output row, of which row i has those from
    `output_offsets[i]` to `output_offsets[i + 1]`. `input_pairs`, `input_offsets`: the same by input row.
    """

    inputs: Tensor
    outputs: Tensor
    counts: Tensor
    output_pairs: Tensor
    output_offsets: Tensor
    input_pairs: Tensor
    input_offsets: Tensor


class SparseSites:
    """The visible positions of a batch of frames; all tensors and layers at one resolution share one.

    Rows follow the raster order of their positions, frame after frame, so that a frame's rows are contiguous.

    Args:
        visible: (N, 1, H, W) bool, True where a site is.

    Attributes:
        grid: (N, H + 2, W + 2) the row of each position, -1 where nothing is and in the border: a kernel may look
            past the edge. It serves as the paper's hashing table (Section III-C).
        positions: (n,) where each row lies in N x H x W.
        frames: (n,) which frame each row belongs to.
        frame_offsets: (N + 1,) where each frame's rows begin.

    Raises:
        ValueError: if `visible` is not bool (N, 1, H, W).
    """

    def __init__(self, visible: Tensor) -> None:
        if visible.dtype != torch.bool or visible.ndim != 4 or visible.shape[1] != 1:
            raise ValueError(f"visible must be bool (N, 1, H, W), got {visible.dtype} {tuple(visible.shape)}")
        num_frames, _, height, width = visible.shape
        self.visible = visible
        self.positions = visible.flatten().nonzero().squeeze(1)
        self.frames = self.positions // (height * width)
        frame_starts = torch.arange(num_frames + 1, device=visible.device) * (height * width)
        self.frame_offsets = torch.searchsorted(self.positions, frame_starts, out_int32=True)
        self.grid = torch.full((num_frames, height + 2, width + 2), -1, dtype=torch.int32, device=visible.device)
        self.grid.view(-1).index_copy_(0, self._look_up(self.grid, 1, 1), row_numbers(self.positions))
        self._coarse: SparseSites | None = None
        self._pairs: dict[tuple[int, int], PairTable] = {}
        _mark_dynamic(self.positions, self.frames)

    def strided(self, stride: int) -> "SparseSites":
        """Output sites of a convolution: these at stride 1; at stride 2 active iff any of 2 x 2 positions is."""
        if stride == 1:
            return self
        if self._coarse is None:
            self._coarse = _coarsen(self)
        return self._coarse

    def pairs(self, kernel_size: int, stride: int) -> PairTable:
        """Pairs of a convolution over these sites, built at the first call."""
        if (kernel_size, stride) not in self._pairs:
            self._pairs[kernel_size, stride] = _find_pairs(self, kernel_size, stride)
        return self._pairs[kernel_size, stride]

    def gather(self, x: Tensor) -> Tensor:
        """Rows (n, C) of a dense (N, C, H, W) tensor; what lies at masked positions meets no arithmetic.

        Raises:
            ValueError: if `x` has other frames or another size than the sites.
        """
        if x.ndim != 4 or self.visible.shape != (x.shape[0], 1, *x.shape[2:]):
            raise ValueError(
                f"x must be (N, C, H, W) and visible (N, 1, H, W), got {tuple(x.shape)} and {tuple(self.visible.shape)}"
            )
        return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).index_select(0, self.positions)

    def scatter(self, features: Tensor) -> Tensor:
        """The inverse of `gather`, with zeros elsewhere: (N, C, H, W), channels last in memory."""
        num_frames, _, height, width = self.visible.shape
        dense = features.new_zeros(num_frames * height * width, features.shape[1])
        dense = dense.index_copy_(0, self.positions, features)
        return dense.view(num_frames, height, width, features.shape[1]).permute(0, 3, 1, 2)

    def _look_up(self, grid: Tensor, stride: int, shift: int) -> Tensor:
        """(n,) where `stride * (y, x) + shift` of each site (y, x) lies in a bordered grid."""
        height, width = self.visible.shape[-2:]
        y, x = self.positions // width % height, self.positions % width
        return (self.frames * grid.shape[1] + y * stride + shift) * grid.shape[2] + x * stride + shift


def row_numbers(like: Tensor) -> Tensor:
    """0, 1, ... for each row of a tensor."""
    return torch.arange(like.shape[0], dtype=torch.int32, device=like.device)


def _mark_dynamic(*tensors: Tensor) -> None:
    """Tell the compiler now that these lengths change with every batch: it need not find out by compiling twice."""
    if "torch._dynamo" in sys.modules:  # else nothing is compiled, and importing it takes a second
        for tensor in tensors:
            torch._dynamo.maybe_mark_dynamic(tensor, 0)


# The compiler stays out of the next three: sizes depend on the data there. What it compiles receives finished tables.


@torch.compiler.disable
def find_sites(visible: Tensor, layers: Sequence[tuple[int, int]] = ()) -> SparseSites:
    """Sites of a mask, with the tables of a chain of (kernel_size, stride) layers already built."""
    sites = level = SparseSites(visible)
    for kernel_size, stride in layers:
        level.pairs(kernel_size, stride)
        level = level.strided(stride)
    return sites


@torch.compiler.disable
def _coarsen(sites: SparseSites) -> SparseSites:
    """`F.max_pool2d(visible, 2, ceil_mode=True)` without looking at masked positions."""
    num_frames, _, height, width = sites.visible.shape
    coarse = sites.visible.new_zeros(num_frames, 1, (height + 1) // 2, (width + 1) // 2)
    rows = sites.frames * coarse.shape[2] + sites.positions // width % height // 2
    coarse.view(-1).index_fill_(0, rows * coarse.shape[3] + sites.positions % width // 2, True)
    return SparseSites(coarse)


@torch.compiler.disable
def _find_pairs(sites: SparseSites, kernel_size: int, stride: int) -> PairTable:
    """Look up every tap of every output site in the grid and keep those that hit a site."""
    out_sites, num_taps = sites.strided(stride), kernel_size**2
    num_outputs = out_sites.positions.shape[0]
    tap = torch.arange(kernel_size, device=sites.grid.device)
    steps = (tap[:, None] * sites.grid.shape[2] + tap).view(-1, 1)
    first = out_sites._look_up(sites.grid, stride, 1 - kernel_size // 2)  # 1 is the border
    rows = sites.grid.view(-1).index_select(0, (steps + first).view(-1))  # (K * n_out,), tap after tap
    hits = (rows >= 0).nonzero().squeeze(1)
    taps = hits // max(num_outputs, 1)
    inputs, outputs = rows.index_select(0, hits), hits - taps * num_outputs
    counts = torch.bincount(taps, minlength=num_taps)
    by_output = _group_pairs(outputs, taps, num_outputs, num_taps)
    if stride == 1:
        # Who sees a neighbour is seen by it through the opposite tap, and raster order keeps both in step: the j-th
        # pair of tap k, turned round, is the j-th pair of tap K - 1 - k.
        first_pair = counts.cumsum(0) - counts
        mirror = row_numbers(hits) + (first_pair.flip(0) - first_pair).int()[taps]
        by_input = mirror.index_select(0, by_output[0]), by_output[1]
    else:
        by_input = _group_pairs(inputs, taps, sites.positions.shape[0], num_taps)
    outputs = outputs.int()
    _mark_dynamic(inputs, outputs, *by_output, *by_input)
    return PairTable(inputs, outputs, counts.cpu(), *by_output, *by_input)


def _group_pairs(rows: Tensor, taps: Tensor, num_rows: int, num_taps: int) -> tuple[Tensor, Tensor]:
    """Order pairs (P,) by row without sorting: a row has at most one pair per tap, so (row, tap) is a slot of its own.

    Returns the pairs ordered by row, (P,), and where each row begins, (num_rows + 1,).
    """
    slots = rows * num_taps + taps
    used = torch.zeros(num_rows * num_taps, dtype=torch.int32, device=rows.device)
    used.index_fill_(0, slots, 1)
    rank = used.cumsum(0, dtype=torch.int32)
    pairs = torch.empty_like(slots, dtype=torch.int32)
    pairs.index_copy_(0, rank.index_select(0, slots).long() - 1, row_numbers(slots))
    return pairs, F.pad(rank[num_taps - 1 :: num_taps], (1, 0))
