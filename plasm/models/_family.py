"""The record of a family of models, and the constructors that create its models and register them with timm.

A family is one file of this package. It holds the classes, a record ``FAMILY`` of the class ``Family``, and the
constructors, which timm registers:

    FAMILY = Family(module=__name__, title="...", url="https://arxiv.org/abs/...", citation="@article{...}")
    default_cfgs = FAMILY.default_cfgs  # timm looks for them in the module

    net_mmnist = FAMILY.register(Net, "net_mmnist", **MMNIST, dim=64)
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import FeatureGetterNet
from torch import nn

from plasm import weights
from plasm.tasks import Prediction, Task

from ._adapters import Adapter, adapt_in_channels
from ._pretrained import Filter, resolve_pretrained
from ._untrusted import REMOVED_ARGUMENTS, check_bools, parameters_of

Model = TypeVar("Model", bound=nn.Module)
Size = tuple[int, int, int]

_PAPERS = Path(__file__).with_name("papers.bib").read_text(encoding="utf-8").strip().split("\n\n")
_UNNAMED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
# timm's scripts pass these to every model.
_REGULARIZATION = frozenset({"drop_rate", "drop_path_rate", "drop_block_rate"})


def paper(key: str) -> dict[str, Any]:
    """Title, authors and BibTeX of an entry of papers.bib, for the record of a family: ``Family(**paper(KEY))``."""
    citation = next(entry for entry in _PAPERS if f"{{{key}," in entry)
    found = re.findall(r"(\w+) += \{(.*?)\},?\n", citation, re.DOTALL)
    fields = {name: " ".join(re.sub("[{}]", "", text).split()) for name, text in found}
    authors = (" ".join(reversed(name.split(", "))) for name in fields["author"].split(" and "))
    return {"title": fields["title"], "authors": ", ".join(authors), "citation": citation}


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of models.

    Attributes:
        title: Of the paper.
        url: Of the paper.
        citation: BibTeX of the paper, which the card of every weight of the family quotes.
        authors: Of the paper, as a card prints them.
        module: ``__name__`` of the family's file, in which timm looks for ``default_cfgs``.
        recipes: For the name of a constructor, the hyperparameters of a phase that differ from the record's defaults:
            ``{"net_mmnist": {"pretrain": {"mask_ratio": 0.9}, "train": {"epochs": 200, "lr": 0.001}}}``, with the
            fields of ``plasm.training.PretrainConfig`` and ``TrainConfig``.
        adapters: For the name of each tensor (``*`` stands for anything) that may have another shape than the model's,
            since the model has another number of frames or output channels, what makes it fit: ``adapt_in_frames`` and
            the like.
        first_conv: Name of the convolution that sees the image, which is adapted to other channels; None if there is
            none.
        task: The task that trains the family (``plasm.tasks``), called with the model and, by name, its options: those
            of ``task_args`` in the recipe.
        largest: For the name of an argument of the constructor, the largest value that is accepted from a config.json
            of unknown origin, where that of every argument is too large: a depth, say.
        checkpoint_filter_fn: timm's: maps a foreign state dict (other names of the same tensors) and the model to the
            model's own; gives back what is the model's own already.
        openstl: For each ``method`` of OpenSTL that the family has, what gives the constructor by a configuration, as
            ``plasm.models.openstl.read_config`` gives it, and the arguments besides channels, frames and their size.
        default_cfgs: timm's: the configuration of each constructor, and of its published weights.
        constructors: The registered constructors by name.
    """

    title: str
    url: str
    citation: str
    authors: str = ""
    module: str = ""
    recipes: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    first_conv: str | None = None
    task: Callable[..., Task] = Prediction
    largest: Mapping[str, int] = field(default_factory=dict)
    checkpoint_filter_fn: Filter | None = None
    openstl: Mapping[str, Callable[[Mapping[str, Any]], tuple[str, dict[str, Any]]]] = field(default_factory=dict)
    default_cfgs: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    constructors: "dict[str, Constructor[Any]]" = field(default_factory=dict, init=False, repr=False)

    def register(
        self, model_cls: type[Model], name: str, *, in_chans: int, img_size: tuple[int, int], **args: Any
    ) -> "Constructor[Model]":
        """Register a constructor with timm, under a name that the module gives it, too.

        Args:
            model_cls: Class of the models.
            name: Of the constructor.
            in_chans: C.
            img_size: (H, W) of the clips that it is meant for; the class gets it if it has such an argument.
            **args: Other arguments of the class, where its defaults are others.

        Raises:
            ValueError: If the record does not say its module, or the class does not name its arguments.
        """
        if not self.module:
            raise ValueError(f"the family of {name} does not say its module: Family(module=__name__, ...)")
        if unnamed := [str(p) for p in inspect.signature(model_cls).parameters.values() if p.kind in _UNNAMED]:
            # What would be given by them, no config.json could state.
            raise ValueError(
                f"{model_cls.__name__} of {name} takes {' and '.join(unnamed)}: name each argument, device=None and "
                "dtype=None among them, since the model is saved with them"
            )
        if "img_size" in parameters_of(model_cls):
            args = {"img_size": img_size, **args}
        constructor = Constructor(self, model_cls, name, (in_chans, *img_size), args)
        self.default_cfgs.update(self._describe(name, (in_chans, *img_size)))
        self.constructors[name] = constructor
        register_model(constructor)
        return constructor

    @property
    def all_adapters(self) -> Mapping[str, Adapter]:
        """``adapters``, and that of the first convolution."""
        first = {f"{self.first_conv}.weight": lambda weight, model: adapt_in_channels(weight, model.in_chans)}
        return {**self.adapters, **(first if self.first_conv else {})}

    @property
    def paper(self) -> weights.Paper:
        """The paper of the family, for a model card."""
        return weights.Paper(self.title, self.url, self.citation, self.authors)

    def _describe(self, name: str, input_size: Size) -> Mapping[str, Any]:
        """A constructor's configuration, by timm's convention; with sources if weights are in the manifest."""
        channels, paper = input_size[0], re.search(r"arxiv\.org/abs/([0-9.]+)", self.url)
        cfg = {
            "input_size": input_size,
            "num_classes": 0,
            "pool_size": None,
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "mean": (0.0,) * channels,
            "std": (1.0,) * channels,
            "first_conv": self.first_conv,
            "classifier": None,
            "license": "apache-2.0",
            "paper_name": self.title,
            "paper_ids": f"arXiv:{paper[1]}" if paper else None,
        }
        rows = [row for row in weights.entries() if row.model == name]
        return generate_default_cfgs({row.name: cfg | _source(row) for row in rows} or {name: cfg})


class Constructor(Generic[Model]):
    """Creates a model of a family, with weights by ``pretrained=True``: ``net_mmnist(pretrained=True)``.

    Args:
        family: Of the models.
        model_cls: Their class.
        name: Under which timm and the family's module have it.
        input_size: (C, H, W) of what it is meant for.
        defaults: Arguments of the class that make the variant.
    """

    def __init__(
        self, family: Family, model_cls: type[Model], name: str, input_size: Size, defaults: Mapping[str, Any]
    ) -> None:
        self.__name__ = self.__qualname__ = name
        self.__module__ = family.module
        self.family, self.model_cls, self.input_size, self.defaults = family, model_cls, input_size, defaults
        channels, height, width = input_size
        frames = {**parameters_of(model_cls), **defaults}
        self.__doc__ = (
            f"{model_cls.__name__}: {height}x{width}x{channels}, {frames.get('in_frames')} -> "
            f"{frames.get('out_frames')} frames."
        )

    def __reduce__(self) -> str:
        """As of a function: its name."""
        return self.__name__

    @property
    def arguments(self) -> dict[str, Any]:
        """All arguments with which a model is created by default."""
        return {**parameters_of(self.model_cls), "in_chans": self.input_size[0], **self.defaults}

    def __call__(self, pretrained: bool = False, **kwargs: Any) -> Model:
        """Make a model.

        Args:
            pretrained: Whether it gets weights.
            **kwargs: Arguments of the class, and timm's own.

        Raises:
            plasm.weights.WeightsNotFoundError: If there are no such weights.
            OSError: If a file of weights is damaged or cannot be had.
            ValueError: If configuration, weights and model disagree.
        """
        kwargs, own = self._without_foreign(kwargs), parameters_of(self.model_cls)
        check_bools(self.model_cls, kwargs, self.__name__)
        source = resolve_pretrained(self, pretrained, kwargs)
        kwargs = {**source.arguments, **kwargs, **source.timms}

        def create(**args: Any) -> Model:
            model = self.model_cls(**args)
            if source.fit:
                model.load_state_dict(source.fit(model))
            return model

        # timm describes the model, and loads nothing.
        model: Any = build_model_with_cfg(
            create, self.__name__, False, kwargs_filter=tuple({"num_classes", "global_pool", "in_chans"} - own.keys()),
            feature_cfg={"feature_cls": _get_features, "out_indices": None}, **kwargs,
        )  # fmt: skip
        # Every argument, so that no later change of a default changes a saved model; timm adds what it was given.
        spelled = {**own, "in_chans": model.pretrained_cfg["input_size"][0], **kwargs}
        model._model_args = {name: spelled[name] for name in own}
        model.paper = self.family.paper
        return model

    def _without_foreign(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments without those that the class does not have and that change nothing.

        These are timm's scripts', and options of training that a config.json states.

        Raises:
            TypeError: If an option of training is given.
            ValueError: If one of timm's asks for what the class does not have.
        """
        own, stated = parameters_of(self.model_cls), kwargs.get("pretrained_model_args") or {}
        for name in _REGULARIZATION - own.keys():
            if kwargs.get(name):
                raise ValueError(f"{self.__name__} has no {name}, which is {kwargs[name]}: leave it out, or 0")
        channels = self.input_size[0]
        if "in_chans" not in own and kwargs.get("in_chans", channels) != channels:
            raise ValueError(f"{self.__name__} takes {channels} channel(s) alone, got in_chans={kwargs['in_chans']}")
        removed = REMOVED_ARGUMENTS - own.keys()
        for name in removed & kwargs.keys() - stated.keys():
            raise TypeError(
                f"{self.__name__} has no argument {name}, which is an option of training: --task-arg {name}=..."
            )
        # A model that does not take the size of the frames takes any.
        foreign = removed | ({*_REGULARIZATION, "img_size"} - own.keys())
        out = {name: value for name, value in kwargs.items() if name not in foreign}
        if stated:
            out["pretrained_model_args"] = {name: value for name, value in stated.items() if name not in removed}
        return out


def _get_features(model: Any, out_indices: Any = None, **cfg: Any) -> nn.Module:
    """For ``features_only``: all that ``feature_info`` lists by default, where timm would take the first five."""
    indices = range(len(model.feature_info)) if out_indices is None else out_indices
    return FeatureGetterNet(model, tuple(indices) if not isinstance(indices, int) else indices, **cfg)


def _source(row: weights.Entry) -> dict[str, Any]:
    if row.repo is None:
        return {"file": str(weights.manifest.FOLDER / row.file), "license": row.license}
    return {"hf_hub_id": f"{row.repo}@{row.revision}", "hf_hub_filename": row.file, "license": row.license}
