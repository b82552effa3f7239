"""PLA-SM for weather radar: advection along optical flow, and a network that corrects it.

Not in a paper: PLA-SM's Translator (arXiv 2311.11289) in motion-following coordinates, as of L-CNN (Ritvanen et al.,
IEEE J-STARS 2023, doi 10.1109/JSTARS.2023.3238016), with a score for each position.

What is known without training is not learned: optical flow of the clip moves its last frame along, which alone is the
forecast that pysteps gives by Lucas and Kanade's method. The network sees the frames moved to where the last one is, so
that only growth, decay and errors of the motion are left between them. For each lead time and cell it says three
things, on a grid of a quarter of the cells a side and each bounded: where else the rain comes from, how much of the
last frame is kept, and what is added. In eval mode the forecast then takes the values of the moved frame, in its own
order: of each rate there is as much as before. No norm or attention looks at the whole frame, much of which may be
dry or not covered: the output at a position depends on its neighbourhood alone.

Shapes: B clips, T input frames, T' output frames, C channels, H x W pixels, h = H / 4 and w = W / 4 of the padded
clip. Pixels are rain by ``plasm.data.radar.normalize``, 0 where it is dry or missing.
"""

import math
from typing import Any

import torch
from einops import rearrange
from einops.layers.torch import Rearrange
from torch import Tensor, nn

from plasm.layers.autocast import without_autocast
from plasm.layers.conv import init_conv_, init_readout_, pad_to_multiple
from plasm.layers.convnext import ConvNeXtBlock
from plasm.layers.local_attention import LocalLayerAttention
from plasm.layers.optical_flow import OpticalFlow, advect, resize, trajectories
from plasm.tasks import RainPrediction

from ._base import VideoModel, check_positive
from ._family import Family, paper
from .plasm import Translator

__all__ = ["PLASMRadar"]

_SPAN = math.log1p(128 / 0.1)
"""A pixel is log(1 + rate / .1) over this: as ``normalize`` has it, the weights are for."""
_MOST_ADDED = 0.3
"""Of pixels: between 1 and 8 mm/h, say."""
_MOST_MOVED = 1.0
"""Cells a step."""


class LocalTranslator(Translator):
    """PLA-SM's Translator, of layers none of which looks at the whole feature map.

    Args:
        dim: Ct, and the channels of its input.
        out_dim: Channels of its output, small at first.
        depth: N, the number of ConvNeXt blocks and of PLA blocks.
        num_heads: Heads of each PLA block.
    """

    def __init__(self, dim: int, out_dim: int, depth: int = 3, num_heads: int = 2, **dd: Any) -> None:
        nn.Module.__init__(self)
        self.grad_checkpointing = False
        self.in_proj = init_conv_(nn.Conv2d(dim, dim, 1, **dd))
        self.pla = nn.ModuleList(LocalLayerAttention(dim, num_heads, **dd) for _ in range(depth))
        self.convnext = nn.ModuleList(ConvNeXtBlock(dim, norm="layer", **dd) for _ in range(depth))
        self.out_proj = init_readout_(nn.Conv2d(dim, out_dim, 1, **dd))


class PLASMRadar(VideoModel):
    """Forecasts T' frames of rain from T: moved along optical flow, and corrected by a Translator of PLA-SM.

    Args:
        in_chans: C.
        in_frames: T.
        out_frames: T'.
        translator_dim: Ct.
        translator_depth: N, ConvNeXt blocks and PLA blocks of the Translator.
        num_heads: Heads of each PLA block.
        device: Device of the parameters.
        dtype: Data type of the parameters.

    Raises:
        ValueError: If a count is not positive, or the heads do not divide ``translator_dim``.
    """

    head_modules = ("translator.out_proj",)
    size_multiple = OpticalFlow.size_multiple

    def __init__(
        self,
        in_chans: int = 1,
        in_frames: int = 6,
        out_frames: int = 12,
        translator_dim: int = 96,
        translator_depth: int = 3,
        num_heads: int = 2,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_chans, in_frames, out_frames)
        check_positive(translator_dim=translator_dim, translator_depth=translator_depth)
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.flow = OpticalFlow()
        # The frames, and the motion.
        patch = (in_frames * in_chans + 2) * OpticalFlow.reduction**2
        self.stem = nn.Sequential(
            # torch's PixelUnshuffle takes no empty batch.
            Rearrange("b c (h p) (w q) -> b (c p q) h w", p=OpticalFlow.reduction, q=OpticalFlow.reduction),
            init_conv_(nn.Conv2d(patch, translator_dim, 3, padding=1, **dd)),
        )
        # Displacement, what is kept and what is added.
        readings = out_frames * (2 + 2 * in_chans)
        self.translator = LocalTranslator(translator_dim, readings, translator_depth, num_heads, **dd)
        names = [f"translator.{stack}.{index}" for stack in ("convnext", "pla") for index in range(translator_depth)]
        self.set_features(dict.fromkeys(names, translator_dim), OpticalFlow.reduction)

    @property
    def dynamic_size(self) -> bool:
        """Whether one exported graph can take any H and W. Not here: whoever calls such a graph pads it with zeros.

        And the graph, which takes the padded clip alone, could not tell what rain is of the clip.
        """
        return False

    def forward(self, clip: Tensor) -> Tensor:
        """Forecast the next frames.

        Args:
            clip: (B, T, C, H, W) of any H and W; beyond the edge rain is as at the edge. Taken as within [0, 1].

        Returns:
            (B, T', C, H, W), not clamped.

        Raises:
            ValueError: If the clip has other T or C than the model, or not five dimensions.
        """
        frames, paths = self._follow(clip)
        features = self.translator.forward_blocks(self._stem(frames, paths))[-1]
        return self._correct(self.translator.out_proj(features), frames, paths, clip)

    def decode(self, features: Tensor, clip: Tensor | None) -> Tensor:
        """(B, Ct, h, w), and the clip that they are of, to frames of its size, (B, T', C, H, W)."""
        if clip is None:
            raise ValueError("a forecast moves the clip's last frame: forward_head(features, clip)")
        return self._correct(self.translator.out_proj(features), *self._follow(clip), clip)

    def forward_blocks(self, clip: Tensor, num_blocks: int | None = None) -> list[Tensor]:
        """z1 ... zN, then the N outputs of the PLA blocks, (B, Ct, h, w) each, of a clip (B, T, C, H, W)."""
        return self.translator.forward_blocks(self._stem(*self._follow(clip)), num_blocks)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that group parameters by layer, for timm's layer-wise learning rates."""
        stem = r"^stem|^translator\.in_proj"
        if coarse:
            return {"stem": stem, "blocks": [(r"^translator\.(?:convnext|pla)", (0,)), (r"^translator", (1,))]}
        blocks = {name: rf"^translator\.{name}\.(\d+)" for name in ("convnext", "pla")}
        return {"stem": stem, **blocks, "head": [(r"^translator\.out_proj", (99999,))]}

    def _follow(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """The padded clip, and how far what arrives has come after 1, 2, ... steps, (B, K, 2, h, w)."""
        self.check_clip(clip)
        # Not with zeros: rain that ends at a line would seem to stand still.
        frames = pad_to_multiple(clip.float().clamp(0, 1).flatten(1, 2), self.size_multiple, "replicate")
        frames = frames.unflatten(1, clip.shape[1:3])
        motion = self.flow(frames.mean(2))
        return frames, trajectories(motion, max(self.in_frames - 1, self.out_frames))

    def _stem(self, frames: Tensor, paths: Tensor) -> Tensor:
        """First features, (B, Ct, h, w), of the frames moved to where the last one is."""
        with torch.no_grad(), without_autocast(frames):
            past = paths[:, : self.in_frames - 1].flip(1)
            moved = advect(frames[:, :-1].flatten(0, 1), resize(past.flatten(0, 1), frames))
            moved = torch.cat([moved.unflatten(0, past.shape[:2]), frames[:, -1:]], 1)
            seen = torch.cat([moved.flatten(1, 2), resize(paths[:, 0], frames) / OpticalFlow.reduction], 1)
        # The motion is found in float32, whatever the weights are of.
        features: Tensor = self.stem(seen.to(next(self.stem.parameters()).dtype))
        return features

    def _correct(self, readings: Tensor, frames: Tensor, paths: Tensor, clip: Tensor) -> Tensor:
        """Move the last frame along, corrected by the network for each lead time: (B, T', C, H, W) of the clip."""
        with without_autocast(frames):
            lead_paths = paths[:, : self.out_frames].flatten(0, 1)
            # The readings of a position move along with its rain.
            readings = rearrange(readings.float(), "b (t c) h w -> (b t) c h w", t=self.out_frames).tanh()
            readings = advect(readings, lead_paths / OpticalFlow.reduction)
            leads = torch.arange(1, self.out_frames + 1, device=readings.device, dtype=readings.dtype)
            reach = leads.repeat(frames.shape[0])[:, None, None, None] * _MOST_MOVED
            where = lead_paths + reach * readings[:, :2]
            parts = resize(torch.cat([where, readings[:, 2:]], 1), frames)
            where, kept, added = parts.split([2, self.in_chans, self.in_chans], 1)
            # Between cells the rate is linear, not its logarithm: else every edge would dry up.
            rate = torch.expm1(_SPAN * frames[:, -1]).repeat_interleave(self.out_frames, 0)
            last = torch.log1p(advect(rate, where)) / _SPAN
            # Of the clip alone: what padding repeats is no rain that there was.
            forecast = self.crop(last * (1 + kept) + _MOST_ADDED * added, clip)
            if not self.training:
                moved = self.crop(torch.log1p(advect(rate, resize(lead_paths, frames))) / _SPAN, clip)
                # The gradient is that of the forecast as it was.
                forecast = forecast + (_match(forecast, moved) - forecast).detach()
            return forecast.unflatten(0, (frames.shape[0], self.out_frames))


def _match(forecast: Tensor, moved: Tensor) -> Tensor:
    """Give a forecast (N, C, H, W) the values of another field, in the order of its own (probability matching).

    What cannot be placed is smooth, with low peaks: in order it is better than what was moved, in amount worse (Ebert,
    MWR 2001).
    """
    order = forecast.flatten(2).argsort(-1)
    values = moved.flatten(2).sort(-1).values
    return torch.empty_like(values).scatter(-1, order, values).view_as(forecast)


FAMILY = Family(
    module=__name__,
    **paper("li2023plasm"),
    url="https://arxiv.org/abs/2311.11289",
    recipes={
        "plasm_radar": {"train": {"optimizer": "muon", "lr": 0.004, "batch_size": 6}},
    },
    task=RainPrediction,
    largest={"translator_depth": 64},
)

default_cfgs = FAMILY.default_cfgs

# Composites of 5 minutes and about 1 km.
plasm_radar = FAMILY.register(PLASMRadar, "plasm_radar", in_chans=1, img_size=(128, 128), in_frames=6, out_frames=12)
