"""The physical cell of PhyDNet, and the moments that its filters are held to.

Paper: Le Guen, Thome, CVPR 2020, arXiv 2003.01460.

Shapes: N clips, D hidden channels, h x w positions, k side of a filter.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn


class PhyCell(nn.Module):
    """PhyCell, Eq. 6 to 8: a prediction by a partial differential equation, then a correction by the input.

        h~ = h + Phi(h)         K = sigmoid(W_x * x + W_h * h)          h' = h~ + K (x - h~)

    Phi is a linear sum, by 1x1, of k^2 filters, each of which training (``plasm.tasks.moment_loss``) makes a partial
    derivative of another order. GroupNorm of seven groups between the two, as in the authors' code, is not in the text.
    There the gate sees h~; in the code, and here, it sees h.

    Args:
        dim: D.
        kernel_size: k, odd; k^2 is a multiple of seven.

    Raises:
        ValueError: If seven does not divide k^2.
    """

    def __init__(self, dim: int, kernel_size: int = 7, **dd: Any) -> None:
        super().__init__()
        if kernel_size % 14 != 7:
            raise ValueError(
                f"k of a PhyCell is odd, and its norm has k^2 filters in seven groups: 7, 21, ...; got {kernel_size}"
            )
        filters = kernel_size**2
        self.derivatives = nn.Conv2d(dim, filters, kernel_size, padding=kernel_size // 2, **dd)
        self.norm = nn.GroupNorm(7, filters, **dd)
        self.combine = nn.Conv2d(filters, dim, 1, **dd)
        self.gate = nn.Conv2d(2 * dim, dim, 3, padding=1, **dd)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Input and state, (N, D, h, w) each, to the next state."""
        gate = torch.sigmoid(self.gate(torch.cat([x, h], 1)))
        predicted = h + self.combine(self.norm(self.derivatives(h)))
        return predicted + gate * (x - predicted)


def kernel_moments(kernels: Tensor) -> Tensor:
    """Moments of filters, Eq. 9: m_ij = 1 / (i! j!) sum over u, v of u^i v^j w_uv, with u and v from the middle.

    A filter whose moments are 0 but m_ij = 1 approximates the derivative of order i along the first axis and j along
    the second.

    Args:
        kernels: (..., k, k).

    Returns:
        (..., k, k), in double precision.
    """
    k = kernels.shape[-1]
    positions = torch.arange(k, dtype=torch.float64, device=kernels.device) - (k - 1) // 2
    orders = torch.tensor([math.factorial(i) for i in range(k)], dtype=torch.float64, device=kernels.device)
    powers = positions.pow(torch.arange(k, device=kernels.device)[:, None]) / orders[:, None]
    return powers @ kernels.double() @ powers.T
