"""The frame of a MetaFormer block, into which a token mixer and an MLP go (Yu et al., CVPR 2022, arXiv 2111.11418).

Shapes: N clips, C = dim channels, H x W positions.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from timm.layers import DropPath, trunc_normal_
from torch import Tensor, nn


def init_fan_out_(module: nn.Module) -> None:
    """Initialise in place as MetaFormers do: convolutions from N(0, 2 / fan-out), linear layers from N(0, .02^2).

    Unlike torch's, the fan-out is divided by the groups.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / fan_out))
        elif isinstance(layer, nn.Linear):
            trunc_normal_(layer.weight, std=0.02)
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


class DepthwiseMlp(nn.Module):
    """1x1 convolution, 3x3 depthwise convolution, GELU, 1x1 convolution (Guo et al., VAN, arXiv 2202.09741, Fig. 3).

    Args:
        dim: Channels in and out.
        hidden_dim: Channels between.
        drop: Dropout rate.
    """

    def __init__(self, dim: int, hidden_dim: int, drop: float = 0.0, **dd: Any) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden_dim, 1, **dd)
        self.dwconv = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim, **dd)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden_dim, dim, 1, **dd)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return self.drop(self.fc2(self.drop(self.act(self.dwconv(self.fc1(x))))))


class MetaFormerBlock(nn.Module):
    """x = x + s1 * mixer(norm1(x)), then x = x + s2 * mlp(norm2(x)), with a learned scale s of each channel.

    Convolutions and linear layers of ``mixer`` and ``mlp`` are initialised anew: load their weights afterwards.

    Args:
        dim: Channels in and out.
        mixer: Mixes positions, (N, C, H, W) -> same.
        mlp: Mixes channels, (N, C, H, W) -> same.
        norm_layer: Makes a norm of ``dim`` channels.
        init_scale: What s1 and s2 start from; None leaves them out.
        drop_path: Chance that a clip skips a branch in training.
    """

    scale1: Tensor | None
    scale2: Tensor | None

    def __init__(
        self,
        dim: int,
        mixer: nn.Module,
        mlp: nn.Module,
        norm_layer: Callable[..., nn.Module] = nn.BatchNorm2d,
        init_scale: float | None = 1e-2,
        drop_path: float = 0.0,
        **dd: Any,
    ) -> None:
        super().__init__()
        self.norm1, self.mixer = norm_layer(dim, **dd), mixer
        self.norm2, self.mlp = norm_layer(dim, **dd), mlp
        for name in ("scale1", "scale2"):
            scale = None if init_scale is None else nn.Parameter(torch.full((dim, 1, 1), init_scale, **dd))
            self.register_parameter(name, scale)
        self.drop_path: nn.Module = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        init_fan_out_(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        x = self._add(x, self.mixer(self.norm1(x)), self.scale1)
        return self._add(x, self.mlp(self.norm2(x)), self.scale2)

    def _add(self, x: Tensor, branch: Tensor, scale: Tensor | None) -> Tensor:
        branch = self.drop_path(branch)
        if scale is None:
            return x + branch
        # One pass over memory; torch 2.6 cannot export it at a dynamic size, and whoever compiles fuses the two.
        return x + branch * scale if torch.compiler.is_compiling() else torch.addcmul(x, branch, scale)
