"""The base class of all models: a module that maps clips to clips, with timm's conventions.

Shapes: B clips, T input frames, T' output frames, C input and C' output channels, H x W pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, TypeVar

import torch
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from plasm.layers.conv import pad_to_multiple

from ._forecasting import forecasts
from ._untrusted import takes

Model = TypeVar("Model", bound="VideoModel")


def set_grad_checkpointing(module: nn.Module, enable: bool = True) -> None:
    """Set ``grad_checkpointing`` of every part that has it: those run their blocks by ``layers.conv.run_block``."""
    for part in module.modules():
        if hasattr(part, "grad_checkpointing"):
            part.grad_checkpointing = enable  # type: ignore[assignment]


def check_positive(**counts: int | Sequence[int]) -> None:
    """Check arguments that count something, by name: a model of no frames or blocks would fail at its first clip.

    Raises:
        ValueError: If one, or one of several, is no whole number above 0.
    """
    for name, given in counts.items():
        counted: Sequence[Any] = given if isinstance(given, list | tuple) else (given,)
        for count in counted:
            if isinstance(count, bool) or not isinstance(count, Integral) or count < 1:
                raise ValueError(f"{name} must be positive, a whole number, got {count!r}")


def check_odd(**sides: int | Sequence[int]) -> None:
    """Check sides of kernels, by name: an even one gives more positions than it sees, and fails at the first clip.

    Raises:
        ValueError: If one, or one of several, is no odd number above 0.
    """
    check_positive(**sides)
    for name, given in sides.items():
        for side in given if isinstance(given, list | tuple) else (given,):
            if side % 2 == 0:
                raise ValueError(f"{name} must be odd, got {side}")


def check_chances(**chances: float | Sequence[float]) -> None:
    """Check arguments that are chances, by name: a drop path above 1 fails in training, and below 0 drops nothing.

    Raises:
        ValueError: If one, or one of several, is no number from 0 to 1.
    """
    for name, given in chances.items():
        for chance in given if isinstance(given, list | tuple) else (given,):
            if not isinstance(chance, int | float) or not 0 <= chance <= 1:
                raise ValueError(f"{name} is a chance from 0 to 1, got {chance!r}")


def match_layers(stem: str, blocks: str, head: str) -> Callable[..., dict[str, Any]]:
    """A ``group_matcher`` for timm, by the names of parameters: of the stem, of numbered blocks, and of the head."""

    def match(self: nn.Module, coarse: bool = False) -> dict[str, Any]:
        """Patterns that group parameters by layer, for timm's layer-wise learning rates."""
        each = [(blocks, (0,)), (head, (1,))] if coarse else [(rf"{blocks}\.(\d+)", None), (head, (99999,))]
        return {"stem": stem, "blocks": each}

    return match


class VideoModel(nn.Module):
    """A model that predicts T' frames from T.

    A subclass defines ``forward(clip)``: (B, T, C, H, W) -> (B, T', C', H, W), usually as ``pad_clip``, its own
    arithmetic, ``crop``; or ``forecast``, of which ``forward`` and ``predict`` are made then. For
    ``forward_intermediates`` and timm's ``features_only`` it calls ``set_features``, and has ``forward_blocks`` and
    ``head_modules``; and, where frames are made of the last block's features alone, ``decode``; a part that can
    recompute its blocks in the backward pass has an attribute ``grad_checkpointing`` (see
    ``plasm.layers.conv.run_block``). For phase 1 and ``freeze_encoder`` it has ``encoder`` and ``decoder``, as
    ``MaskedAutoencoder`` takes them.

    It holds no state between calls, and knows no training: losses and what a training step shows are a task's
    (``plasm.tasks``), which ``Family.task`` names.

    Args:
        in_chans: C.
        in_frames: T.
        out_frames: T'.
        out_chans: C'; C by default.

    Attributes:
        num_classes: 0: timm asks every model, and there is no classifier.
        num_features: Channels of the last of ``feature_info``.
        feature_info: timm's: of each feature map "num_chs", "reduction" (of H and W) and "module".
        head_modules: Names of what comes after the last block, which ``prune_intermediate_layers`` takes away.
        size_multiple: What H and W are padded to a multiple of.
        fixed_size: Whether there are weights for each position, so that H and W cannot be chosen.
        adaptable: Of "in_chans" and "in_frames", those in which the weights that a model is created with may be of
            another number, which ``Family.adapters`` make fit.
        encoder_frozen: Whether the encoder is kept as it is.

    Raises:
        ValueError: If a count is not positive.
    """

    num_features: int = 0
    head_modules: tuple[str, ...] = ()
    size_multiple: int = 1
    fixed_size: bool = False
    adaptable: tuple[str, ...] = ()

    def __init__(self, in_chans: int, in_frames: int, out_frames: int, out_chans: int | None = None) -> None:
        super().__init__()
        self.in_chans, self.out_chans = in_chans, in_chans if out_chans is None else out_chans
        self.in_frames, self.out_frames = in_frames, out_frames
        check_positive(in_chans=in_chans, out_chans=self.out_chans, in_frames=in_frames, out_frames=out_frames)
        self.num_classes = 0
        self.feature_info: list[dict[str, Any]] = []
        self.encoder_frozen = False

    def set_features(self, dims: Mapping[str, int], reduction: int) -> None:
        """Set ``feature_info`` and ``num_features``.

        Args:
            dims: Channels of each block, by the name of its module, in order of depth.
            reduction: What they divide H and W by.
        """
        self.feature_info = [{"num_chs": dim, "reduction": reduction, "module": name} for name, dim in dims.items()]
        self.num_features = self.feature_info[-1]["num_chs"]

    def check_clip(self, clip: Tensor) -> None:
        """Check the shape of a clip.

        Raises:
            ValueError: If it has other T or C than the model, or not five dimensions.
        """
        if clip.ndim == 5 and clip.shape[1:3] == (self.in_frames, self.in_chans):
            return
        message = (
            f"expected a clip of shape (B, T, C, H, W) = (B, {self.in_frames}, {self.in_chans}, H, W), got "
            f"{tuple(clip.shape)}"
        )
        if clip.ndim == 5:
            given = {"in_frames": clip.shape[1], "in_chans": clip.shape[2]}
            given = {name: count for name, count in given.items() if count != getattr(self, name)}
            other = ", ".join(f"{name}={count}" for name, count in given.items())
            if fixed := sorted(name for name in given if not takes(type(self), name)):
                message += f"; {type(self).__name__} has no argument {' and '.join(fixed)}, so it takes no such clips"
            elif given.keys() <= set(self.adaptable):
                message += f"; for such clips make the model with {other}: create_model adapts published weights to it"
            else:
                message += (
                    f"; for such clips make the model with {other}: create_model makes it to be trained, since no "
                    "other weights fit it"
                )
        raise ValueError(message)

    def pad_clip(self, clip: Tensor) -> Tensor:
        """Check a clip (B, T, C, H, W) and pad it at the bottom and the right to multiples of ``size_multiple``.

        Raises:
            ValueError: If the clip has other T or C than the model, or not five dimensions.
        """
        self.check_clip(clip)
        return pad_to_multiple(clip, self.size_multiple)

    @staticmethod
    def crop(frames: Tensor, clip: Tensor) -> Tensor:
        """Cut from frames (..., H', W') what padding ``clip`` (..., H, W) added."""
        return frames[..., : clip.shape[-2], : clip.shape[-1]]

    @property
    def dynamic_size(self) -> bool:
        """Whether one exported graph can take any H and W."""
        return not self.fixed_size

    def forward(self, clip: Tensor) -> Tensor:
        """Predict the next frames.

        Args:
            clip: (B, T, C, H, W); zeros are added at the bottom and the right where the layers need it, and what they
                become is cut from the output.

        Returns:
            (B, T', C', H, W), not clamped.

        Raises:
            ValueError: If the clip has other T or C than the model, not five dimensions, or another H or W where those
                are fixed.
        """
        if type(self).forecast is VideoModel.forecast:
            # Each of the two is made of the other.
            raise NotImplementedError(f"{type(self).__name__} defines neither forward nor forecast")
        return self.forecast(clip, self.out_frames)

    def forecast(self, clip: Tensor, num_frames: int) -> Tensor:
        """(B, T, C, H, W) to (B, num_frames, C', H, W), as ``predict`` gives them, with gradient."""
        predicted = self(clip)
        while predicted.shape[1] < num_frames:
            window = torch.cat([clip, predicted], 1)[:, -self.in_frames :]
            predicted = torch.cat([predicted, self(window)], 1)
        return predicted[:, :num_frames]

    @forecasts
    def predict(self, clip: Tensor, num_frames: int | None = None) -> Tensor:
        """Predict any number of frames: fewer than T' are cut, for more the model's own frames are fed back.

        Args:
            clip: (B, T, C, H, W).
            num_frames: How many; T' by default.

        Returns:
            (B, num_frames, C', H, W), not clamped, without gradient.

        Raises:
            ValueError: If ``num_frames`` is not positive, the clip is not what ``forward`` takes, or the model's own
                output would have to be fed back to it and has other channels than its input.
        """
        num_frames = self.out_frames if num_frames is None else num_frames
        if num_frames < 1:
            raise ValueError(f"num_frames must be positive, got {num_frames}")
        self.check_feedback(num_frames)
        return self.forecast(clip, num_frames)

    @property
    def feedback_frames(self) -> int | None:
        """After every so many frames ``predict`` goes on from the last T alone; None if the model knows more then."""
        return self.out_frames if type(self).forecast is VideoModel.forecast else None

    def check_feedback(self, num_frames: int) -> None:
        """Check that so many frames can be predicted.

        Raises:
            ValueError: If frames would have to be fed back, and have other channels than the input.
        """
        if num_frames > self.out_frames and self.out_chans != self.in_chans:
            raise ValueError(
                f"{num_frames} frames are more than the {self.out_frames} of the model, and its output of "
                f"{self.out_chans} channel(s) cannot be fed back where it takes {self.in_chans}: ask for "
                f"{self.out_frames} or fewer, or make the model with out_frames={num_frames}"
            )

    def forward_blocks(self, clip: Tensor, num_blocks: int | None = None) -> list[Tensor]:
        """Outputs of the first ``num_blocks`` (all by default) of the blocks that ``feature_info`` lists.

        Args:
            clip: (B, T, C, H, W).
            num_blocks: How many blocks to run.

        Returns:
            (N, D, h, w) each, with D and H / h of ``feature_info``.
        """
        raise NotImplementedError(f"{type(self).__name__} gives no intermediate features")

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Features of the blocks that ``feature_info`` lists, by timm's convention.

        Args:
            x: Clip, (B, T, C, H, W).
            indices: Which of the blocks: the last n if an int, all if None.
            norm: Must be False: the blocks end without a norm.
            stop_early: Do not run the blocks after the last one asked for.
            output_fmt: "NCHW", nothing else.
            intermediates_only: Return the intermediates alone.

        Returns:
            The intermediates, (N, D, h, w) each; before them, unless ``intermediates_only``, the output of the last
            block that ran.

        Raises:
            ValueError: If ``norm`` or ``output_fmt`` asks for what there is not.
        """
        if norm or output_fmt != "NCHW":
            raise ValueError(
                f'{type(self).__name__} has no final norm and gives "NCHW", got norm={norm}, output_fmt={output_fmt!r}'
            )
        taken, last = feature_take_indices(len(self.feature_info), indices)
        # Not all that there are: some may have been pruned.
        outputs = self.forward_blocks(x, last + 1 if stop_early else len(self.feature_info))
        intermediates = [outputs[index] for index in taken]
        return intermediates if intermediates_only else (outputs[-1], intermediates)

    def forward_features(self, clip: Tensor) -> Tensor:
        """Features of the last block, (N, D, h, w), of a clip (B, T, C, H, W)."""
        return self.forward_blocks(clip, len(self.feature_info))[-1]

    def forward_head(
        self, x: Tensor, clip: Tensor | bool | None = None, pre_logits: bool | Tensor | None = False
    ) -> Tensor:
        """Make frames of what ``forward_features`` gives.

        Args:
            x: (N, D, h, w).
            clip: (B, T, C, H, W) that they are of: its size is cut from the frames, and its first features go past the
                blocks where the model has such a skip.
            pre_logits: Give features for a head of one's own: the mean over all positions. It may come second, as
                timm has it: ``forward_head(x, True)``.

        Returns:
            (B, T', C', H, W), what ``forward(clip)`` gives; without ``clip`` of the padded size; or (N, D).

        Raises:
            ValueError: If the model needs ``clip``, and it is not given.
        """
        if isinstance(clip, bool):
            clip, pre_logits = (pre_logits if isinstance(pre_logits, Tensor) else None), clip
        if pre_logits is True:
            return x.mean((-2, -1))
        frames = self.decode(x, clip)
        return frames if clip is None else self.crop(frames, clip)

    def decode(self, features: Tensor, clip: Tensor | None) -> Tensor:
        """Features of the last block to frames (B, T', C', H, W) of the padded size; see ``forward_head``."""
        raise NotImplementedError(f"{type(self).__name__} makes its frames of more than the last block's features")

    @property
    def head_hidden_size(self) -> int:
        """D, channels of what ``forward_head(..., pre_logits=True)`` gives."""
        return self.num_features

    def get_classifier(self) -> nn.Module:
        """timm's: there is none."""
        return nn.Identity()

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """timm's: there is none to replace, so that only 0 classes will do.

        Raises:
            ValueError: If ``num_classes`` is not 0.
        """
        if num_classes:
            raise ValueError(
                f"a {type(self).__name__} predicts frames and has no classifier of {num_classes} classes: put one on "
                "forward_head(forward_features(clip), pre_logits=True)"
            )

    def prune_intermediate_layers(
        self, indices: int | list[int] | None = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Take away the blocks after the last one asked for, by timm's convention; the rest gives features only.

        Args:
            indices: As for ``forward_intermediates``.
            prune_norm: Without effect: the blocks end without a norm.
            prune_head: Take away what comes after the blocks, too.

        Returns:
            The indices of the blocks asked for.
        """
        taken, last = feature_take_indices(len(self.feature_info), indices)
        for info in reversed(self.feature_info[last + 1 :]):
            blocks, _, index = info["module"].rpartition(".")
            stack: Any = self.get_submodule(blocks)
            del stack[int(index)]
        if prune_head or last + 1 < len(self.feature_info):
            for name in self.head_modules:
                self.set_submodule(name, nn.Identity())
        self.feature_info = self.feature_info[: last + 1]
        self.num_features = self.feature_info[-1]["num_chs"]
        return taken

    def freeze_encoder(self, frozen: bool = True) -> None:
        """Fix the encoder, as in the second phase of PLA-SM: no gradient, and eval mode that ``train()`` keeps.

        Raises:
            ValueError: If it is to be frozen, and there is no encoder.
        """
        encoder = getattr(self, "encoder", None)
        # STAM's has no layers where nothing reduces the positions.
        if encoder is None or next(encoder.parameters(), None) is None:
            if frozen:
                raise ValueError(f"a {type(self).__name__} has no encoder to freeze")
            return
        self.encoder_frozen = frozen
        encoder.requires_grad_(not frozen)
        self.train(self.training)

    def train(self: Model, mode: bool = True) -> Model:
        """Set training mode; a frozen encoder stays in eval mode."""
        super().train(mode)
        if self.encoder_frozen:
            self.get_submodule("encoder").eval()
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        set_grad_checkpointing(self, enable)
