"""A step of training: from a batch of clips to losses.

Shapes: B clips, T input frames, T' output frames, C channels, H x W pixels.
"""

from typing import NamedTuple

from torch import Tensor, nn

Losses = dict[str, Tensor]
"""The terms of a loss by name, scalars; their sum is what is minimised, so that each has its weight already."""


class Outputs(NamedTuple):
    """The clips of a step, for validation and its pictures.

    Attributes:
        shown: The clip that a picture shows as the input, (B, T, C, H, W).
        target: What should come out, (B, T', C, H, W).
        prediction: What came out, float, of the target's shape; the target itself where a pixel has no weight.
    """

    shown: Tensor
    target: Tensor
    prediction: Tensor


class Task(nn.Module):
    """A step of training, and of validation: a subclass defines ``forward``.

    Whatever a task draws, by torch's generator in training, is a function of the seed and the step: the trainer seeds
    it before each step. It keeps no state between calls. Its options are keyword arguments of its constructor: a recipe
    of a family, and ``--task-arg`` of ``plasm train``, give them by name.

    Args:
        model: The module that is trained, averaged, saved and, with ``--compile``, compiled. A task's own parameters
            are not: a loss that learns has them in the model.

    Attributes:
        name: "prediction", unless the weights alone cannot predict; it stands in ``config.json`` of the run.
        follows: Whether the prediction follows what is shown, as frames of a clip do, or stands beside it.
        divisible: Whether a batch that is cut into parts is trained on as one that is not.
    """

    name = "prediction"
    follows = True
    divisible = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, clips: Tensor, index: Tensor, epoch: int | None, step: int, weight: Tensor | None = None
    ) -> tuple[Losses, Outputs]:
        """Compute the losses of a batch, or of a process's part of it.

        Args:
            clips: (B, T + T', C, H, W), in [0, 1].
            index: Of the clips in their data set, int64, (B,).
            epoch: Counted from 0; None in validation, which no seed and no epoch changes.
            step: How many steps the optimizer has taken.
            weight: Of each pixel in the loss, of the clips' shape; 0 leaves it out. Given of a data set that has it.

        Returns:
            The losses by name, scalars, the same names at each step, and the outputs. The mean over the parts is that
            of the batch if the task is ``divisible``.
        """
        raise NotImplementedError


def total_loss(losses: Losses) -> Tensor:
    """The sum of the losses of a step, which is what is minimised.

    Raises:
        ValueError: If there are none.
    """
    if not losses:
        raise ValueError("a task gives a loss, at least one, by name")
    first, *others = losses.values()
    for other in others:
        first = first + other
    return first


def frame_counts(model: nn.Module) -> tuple[int, int]:
    """T and T' of a model.

    Raises:
        ValueError: If the model does not say.
    """
    counts = tuple(getattr(model, name, None) for name in ("in_frames", "out_frames"))
    if not all(isinstance(count, int) and count > 0 for count in counts):
        raise ValueError(
            f"{type(model).__name__} does not say how many frames it maps to how many: it needs the attributes "
            "in_frames and out_frames"
        )
    return counts  # type: ignore[return-value]


def check_options(**options: float | None) -> None:
    """Check options of a task that count steps or weigh a loss; None is no value.

    Raises:
        ValueError: If one is no number, or negative.
    """
    for name, value in options.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and 0 <= value < float("inf")):
            raise ValueError(f"{name} is a number from 0 on, got {value!r}")
