"""The base of recurrent models: step by step, for any horizon, on true frames or on forecasts of their own.

A step takes one frame and a state and gives a forecast of the next frame and the next state. Over the T frames of a
clip the frames are the clip's; after them each forecast is the next frame. What a step makes of its frame alone is made
of all known frames at once.

Shapes: B clips, T input frames, T' output frames, C channels, H x W pixels, N frames, p patch side, h = H / p,
w = W / p.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from plasm.layers.conv import pad_to_multiple

from ._base import VideoModel

Inputs = tuple[Tensor, ...]


def patchify(frames: Tensor, patch: int) -> Tensor:
    """(N, C, H, W) to (N, p^2 C, h, w): row in the patch, then column, then channel."""
    return rearrange(frames, "n c (h p) (w q) -> n (p q c) h w", p=patch, q=patch)


def unpatchify(patches: Tensor, patch: int) -> Tensor:
    """The inverse of ``patchify``."""
    return rearrange(patches, "n (p q c) h w -> n c (h p) (w q)", p=patch, q=patch)


class RecurrentModel(VideoModel):
    """A model that predicts one frame at a time.

    A subclass gives what is of one step: ``encode_frames``, ``step``, ``decode_frames``, ``hidden_states``.
    State goes in and comes out; None is the state before the first frame. ``set_grad_checkpointing`` keeps for the
    backward pass the states between steps alone, and runs each step again there.

    Args:
        in_chans: C.
        in_frames: T.
        out_frames: T'.
        img_size: (H, W) or one number, for a model with weights for each position (``fixed_size``); else None will do.
        size_multiple: What H and W are padded to a multiple of.
    """

    # What the steps of a clip run in, where the weights do not change: ``plasm.cpu.speed_up`` knows something better.
    unrolling: Callable[[], AbstractContextManager[object]] = staticmethod(nullcontext)
    fixed_size = False
    adaptable: tuple[str, ...] = ("in_chans", "in_frames")

    def __init__(
        self,
        in_chans: int,
        in_frames: int,
        out_frames: int,
        img_size: int | tuple[int, int] | None,
        size_multiple: int,
    ) -> None:
        super().__init__(in_chans, in_frames, out_frames)
        # A tuple, whatever a config.json made of it.
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else img_size and (img_size[0], img_size[1])
        self.size_multiple = size_multiple
        self.grad_checkpointing = False

    @property
    def positions(self) -> tuple[int, int]:
        """(h, w) of ``img_size``, padded.

        Raises:
            ValueError: If the model has none.
        """
        if self.img_size is None:
            raise ValueError(f"a {type(self).__name__} with weights for each position needs img_size=(H, W)")
        return -(-self.img_size[0] // self.size_multiple), -(-self.img_size[1] // self.size_multiple)

    def encode_frames(self, frames: Tensor) -> Inputs:
        """What a step needs of its frame: of (N, C, H, W), tensors of N first."""
        raise NotImplementedError

    def step(self, inputs: Inputs, state: Any) -> tuple[Tensor, Any]:
        """One step: what ``encode_frames`` gave of a frame and a state (None at the start), to features and a state."""
        raise NotImplementedError

    def decode_frames(self, features: Tensor, inputs: Inputs) -> Tensor:
        """The next frames (N, C, H, W), of the features of steps and what their frames gave."""
        raise NotImplementedError

    def hidden_states(self, state: Any) -> list[Tensor]:
        """Of a state, the features of each layer, (B, D, h, w), that ``feature_info`` lists."""
        raise NotImplementedError

    def unroll(self, clip: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, list[Any]]:
        """Forecasts of all frames but the first, each of the frame before or of its forecast.

        Args:
            clip: (B, T, C, H, W).
            target: (B, F, C, H, W), of any number of frames.
            mask: Of scheduled sampling, bool, (B, T + F - 2): True where an input is the true frame, of the second to
                the last but one; else it is the forecast.

        Returns:
            (B, T + F - 1, C, H, W), and the state after each step.

        Raises:
            ValueError: As ``forward``, or if the mask is of another number of frames.
        """
        self.check_clip(clip)
        if mask.shape[-1] != (drawn := clip.shape[1] + target.shape[1] - 2):
            raise ValueError(
                f"expected a mask of shape (B, T + F - 2) = (B, {drawn}), of all frames but the first and the last, "
                f"got {tuple(mask.shape)}"
            )
        frames = self._pad(torch.cat([clip, target], 1)).transpose(0, 1)
        # Frames that are true for every clip, from the first on, are encoded at once.
        known = 1 + int(mask.all(0).to(torch.int64).cumprod(0).sum())
        mask = mask.T[..., None, None, None].to(clip.device)
        state: Any = None
        forecasts: list[Tensor] = []
        states: list[Any] = []
        with self._same_weights():
            encoded = self._encode_all(frames[:known])
            for index in range(len(frames) - 1):
                if index < known:
                    inputs = encoded[index]
                else:
                    last = forecasts[-1].to(frames.dtype)
                    inputs = self.encode_frames(torch.where(mask[index - 1], frames[index], last))
                features, state = self._run_step(inputs, state)
                forecasts.append(self.decode_frames(features, inputs))
                states.append(state)
        return self.crop(torch.stack(forecasts, 1), clip), states

    def forward_blocks(self, clip: Tensor, num_blocks: int | None = None) -> list[Tensor]:
        """The hidden states of the layers after the last of the T frames, (B, D, h, w) each, of (B, T, C, H, W)."""
        self.check_clip(clip)
        state: Any = None
        for inputs in self._encode_all(self._pad(clip).transpose(0, 1)):
            _, state = self._run_step(inputs, state)
        return self.hidden_states(state)[:num_blocks]

    def prune_intermediate_layers(
        self, indices: int | list[int] | None = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """timm's: no layer can go, for those below see what those above did one step before.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"the layers of a {type(self).__name__} see each other from step to step: none can be pruned")

    def forecast(self, clip: Tensor, num_frames: int) -> Tensor:
        """As the base class has it: the recurrence goes on, and nothing is encoded again."""
        self.check_clip(clip)
        state: Any = None
        forecasts: list[Tensor] = []
        with self._same_weights():
            encoded = self._encode_all(self._pad(clip).transpose(0, 1))
            for index in range(self.in_frames + num_frames - 1):
                inputs = encoded[index] if index < self.in_frames else self.encode_frames(forecasts[-1])
                features, state = self._run_step(inputs, state)
                if index >= self.in_frames - 1:
                    forecasts.append(self.decode_frames(features, inputs))
        return self.crop(torch.stack(forecasts, 1), clip)

    def _encode_all(self, frames: Tensor) -> list[Inputs]:
        """(K, B, C, H, W) to what ``encode_frames`` gives of each of the K, made of all at once."""
        parts = self.encode_frames(frames.flatten(0, 1))
        return list(zip(*(part.unflatten(0, frames.shape[:2]).unbind(0) for part in parts), strict=True))

    def _same_weights(self) -> AbstractContextManager[object]:
        """``unrolling``, but where steps run twice, or in a graph."""
        twice = self.grad_checkpointing and torch.is_grad_enabled()
        return nullcontext() if twice or torch.compiler.is_compiling() else self.unrolling()

    def _run_step(self, inputs: Inputs, state: Any) -> tuple[Tensor, Any]:
        if self.grad_checkpointing and torch.is_grad_enabled():
            out: tuple[Tensor, Any] = checkpoint(self.step, inputs, state, use_reentrant=False)
            return out
        return self.step(inputs, state)

    def _pad(self, clip: Tensor) -> Tensor:
        padded = pad_to_multiple(clip, self.size_multiple)
        if self.fixed_size and padded.shape[-2:] != tuple(side * self.size_multiple for side in self.positions):
            size, (height, width) = " x ".join(map(str, self.img_size or ())), clip.shape[-2:]
            raise ValueError(
                f"this {type(self).__name__} has weights for each position of frames of {size}, got {height} x {width}"
                f": make the model with img_size=({height}, {width})"
            )
        return padded


def same_dims(hidden_dims: Sequence[int], system: str) -> int:
    """The hidden channels of all layers, for a system whose memory goes through all of them.

    Raises:
        ValueError: If they differ, or there are none.
    """
    if len(set(hidden_dims)) != 1:
        raise ValueError(f"all layers of {system} have the same hidden_dims, got {list(hidden_dims)}")
    return hidden_dims[0]
