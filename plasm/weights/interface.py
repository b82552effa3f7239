"""The interface of models: the package's own, those that a user registered with timm, and other modules.

Nothing else above this package looks whether a model has an attribute.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from .card import Paper


@dataclass(frozen=True, kw_only=True)
class ModelInterface:
    """The attributes of a ``VideoModel`` that a model has, and defaults for the others.

    Attributes:
        in_frames: T; None if the model does not say.
        out_frames: T', likewise.
        in_chans: C, likewise.
        out_chans: C'; C if the model does not say.
        size_multiple: What H and W are multiples of in a graph of the model.
        dynamic_size: Whether one graph can take any H and W.
        predict: ``predict(clip, num_frames)``, for any number of frames.
        feedback_frames: After every so many frames ``predict`` goes on from the last T alone; None if it knows more.
        encoder: What phase 1 trains, with ``num_features``; see ``MaskedAutoencoder``.
        decoder: Likewise.
        freeze_encoder: ``freeze_encoder(frozen)``.
        group_matcher: timm's: names the layers of the parameters.
        pretrained_cfg: timm's, of a model that it has made: "input_size" and where the weights came from.
        paper: What the card of its weights cites.
    """

    in_frames: int | None = None
    out_frames: int | None = None
    in_chans: int | None = None
    out_chans: int | None = None
    size_multiple: int = 1
    dynamic_size: bool = True
    predict: Callable[[Tensor, int], Tensor] | None = None
    feedback_frames: int | None = None
    encoder: nn.Module | None = None
    decoder: nn.Module | None = None
    freeze_encoder: Callable[[bool], None] | None = None
    group_matcher: Callable[..., Any] | None = None
    pretrained_cfg: Mapping[str, Any] = field(default_factory=dict)
    paper: Paper | None = None

    @classmethod
    def of(cls, model: nn.Module) -> "ModelInterface":
        """Look at a model.

        A Protocol would not do: from Python 3.12 on, ``isinstance`` sees no submodules.
        """
        found = {name: getattr(model, name) for name in cls.__dataclass_fields__ if hasattr(model, name)}
        found.setdefault("out_chans", found.get("in_chans"))
        return cls(**found)
