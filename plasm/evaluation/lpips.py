"""LPIPS: the distance of frames as AlexNet sees them.

Shapes: B clips, T' frames, C channels, H x W pixels in [0, 1].
"""

import warnings
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from plasm.files import require
from plasm.tasks.losses import check_shapes
from plasm.weights import load_tensors
from plasm.weights.convert import read_checkpoint

LPIPS_LEAST = 32
"""Pixels: below, a layer of AlexNet has nothing left."""


def load_lpips(backbone: str | Path | None = None) -> nn.Module:
    """LPIPS with AlexNet, version 0.1, of the library ``lpips``, as OpenSTL prints it (Zhang et al., arXiv 1801.03924).

    Args:
        backbone: File of torchvision's AlexNet weights for ImageNet, a safetensors file or a state dict of torch's
            (``alexnet-owt-7be5be79.pth``), which is read without unpickling. By default torchvision's, downloaded.

    Raises:
        ImportError: If lpips is not installed.
        OSError: If the file is not there or damaged, or the download fails.
        ValueError: If it holds no AlexNet.
    """
    lpips = require("lpips")
    if backbone is None:
        url = torchvision.models.AlexNet_Weights.IMAGENET1K_V1.url
        try:
            state = torch.hub.load_state_dict_from_url(url, check_hash=True, weights_only=True, map_location="cpu")
        except OSError as error:
            raise OSError(f"AlexNet's weights cannot be had from {url}: {error}; give a file of them") from error
    else:
        file = Path(backbone)
        state = load_tensors(file) if file.suffix == ".safetensors" else read_checkpoint(file)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Torchvision warns of arguments that the library gives it.
        warnings.simplefilter("ignore", UserWarning)
        net = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval().requires_grad_(False)
    # The library keeps the layers of torchvision's ``features`` in slices, under their own numbers.
    layers = {name.partition(".")[2]: name for name, _ in net.net.named_parameters()}
    wanted = {f"features.{layer}": f"net.{name}" for layer, name in layers.items()}
    if missing := [name for name in wanted if name not in state]:
        raise ValueError(f"{backbone} holds no AlexNet of torchvision: it has no {missing[0]}")
    net.load_state_dict({**net.state_dict(), **{ours: state[theirs] for theirs, ours in wanted.items()}})
    return net


def frame_lpips(prediction: Tensor, target: Tensor, net: nn.Module) -> Tensor:
    """LPIPS of each frame: (B, T', C, H, W) twice, C of 1 or 3 -> (B, T').

    Args:
        prediction: Clamped to [0, 1], then scaled to [-1, 1]; one channel counts as three.
        target: In [0, 1].
        net: Of ``load_lpips``, on the same device.

    Raises:
        ValueError: If the shapes differ, C is neither 1 nor 3, or the frames are smaller than AlexNet takes.
    """
    check_shapes(prediction, target)
    channels, height, width = target.shape[2:]
    if channels not in (1, 3) or min(height, width) < LPIPS_LEAST:
        raise ValueError(
            f"LPIPS is of frames of 1 or 3 channels, {LPIPS_LEAST} x {LPIPS_LEAST} or more; got "
            f"{channels} x {height} x {width}"
        )
    x, y = ((2 * clip.float().clamp(0, 1) - 1).flatten(0, 1).expand(-1, 3, -1, -1) for clip in (prediction, target))
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        scores: Tensor = net(x, y)
    return scores.view(target.shape[:2])
