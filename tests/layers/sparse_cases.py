"""Inputs of the sparse tests, and what runs in processes of their own: those import by name, and cannot find a test."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from plasm.layers import SparseEncoder


def random_case(ratio: float, size: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, generator=generator, dtype=dtype)
    visible = torch.rand(size[0], 1, *size[2:], generator=generator) >= ratio
    if size[0] > 2:
        visible[1] = False  # a frame without visible pixels
    return x, visible


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Biases of zero and weights of one would hide what multiplies or adds them."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.normal_(generator=generator).mul_(0.5)


def ddp_worker(rank: int, store: str, result: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    encoder = SparseEncoder(2, 4, 2)
    randomise(encoder)
    x, visible = random_case(0.8, (4, 2, 8, 8), torch.float32)
    part = slice(2 * rank, 2 * rank + 2)
    model = nn.parallel.DistributedDataParallel(encoder)  # a temporary would take its hooks with it before backward
    model(x[part], visible[part]).square().sum().backward()
    if rank == 0:
        torch.save([parameter.grad for parameter in encoder.parameters()], result)
    dist.destroy_process_group()
