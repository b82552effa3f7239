"""Random numbers as a function of counters: the same on every device, in any order, for any number of workers.

The numbers of a clip depend on (seed, split, epoch, index) alone, never on what was drawn before.
"""

import torch
from torch import Tensor

# The odd increment and the two multipliers of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), as signed integers:
# torch's int64 arithmetic wraps, so that it is arithmetic modulo 2^64 on every device.
_INCREMENT = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's own is arithmetic."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser, a bijection of 64-bit words."""
    x = (x ^ _shift_right(x, 30)) * _MULTIPLIERS[0]
    x = (x ^ _shift_right(x, 27)) * _MULTIPLIERS[1]
    return x ^ _shift_right(x, 31)


def counter_hash(*counters: int | Tensor) -> Tensor:
    """Hash integers, or int64 tensors whose shapes broadcast, to 64 random bits: int64, of the broadcast shape.

    The order of the counters matters.
    """
    device = next((counter.device for counter in counters if isinstance(counter, Tensor)), None)
    state = torch.zeros((), dtype=torch.int64, device=device)
    for counter in counters:
        state = _mix((state ^ counter) + _INCREMENT)
    return state


def uniform_below(bits: Tensor, bound: int) -> Tensor:
    """Map 64 random bits to an integer in [0, bound), for bounds up to 2^31; the bias is below bound / 2^32."""
    return (_shift_right(bits, 32) * bound) >> 32
