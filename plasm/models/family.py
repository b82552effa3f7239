"""What a family of models says of itself, and how its models are described to timm and made.

A family is one file of this package. It holds the classes, a record ``FAMILY`` of the class ``Family``,
``default_cfgs`` and the constructors, which timm registers:

    FAMILY = Family(title="...", url="https://arxiv.org/abs/...", citation="@article{...}", recipes={...})

    default_cfgs = FAMILY.default_cfgs({"net_mmnist": (1, 64, 64)}, first_conv="encoder.blocks.0.conv")

    @register_model
    def net_mmnist(pretrained: bool = False, **kwargs: Any) -> Net:
        return FAMILY.create(Net, "net_mmnist", pretrained, {"in_frames": 10, "dim": 64}, kwargs)

Whatever needs to know more of a model than its name asks ``family_of(name)``: nothing else has a list of families.
"""

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, get_pretrained_cfg
from timm.models._features import FeatureGetterNet
from torch import nn

from plasm import weights
from plasm.tasks import Prediction, Task

from .pretrained import Adapter, Filter, resolve_pretrained

__all__ = ["Family", "arguments_of", "family_of", "is_plasm_model", "is_timm_model", "make_task", "recipe"]

_PACKAGE = __package__ or ""

_describing: ContextVar[bool] = ContextVar("describing", default=False)

Model = TypeVar("Model", bound=nn.Module)
Size = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of models.

    Attributes:
        title: Of the paper.
        url: Of the paper.
        citation: BibTeX of the paper, which the card of every weight of the family quotes.
        authors: Of the paper, as a card prints them.
        recipes: For the name of a constructor, what a phase is told where the record's default is another:
            ``{"net_mmnist": {"pretrain": {"mask_ratio": 0.9}, "train": {"epochs": 200, "lr": 0.001}}}``, with the
            fields of ``plasm.training.PretrainConfig`` and ``TrainConfig``.
        adapters: For the name of each tensor (``*`` stands for anything) that may have another shape than the model's,
            since the model has another number of frames or output channels, what makes it fit; see
            ``plasm.models.pretrained``. timm adapts the first convolution to other input channels.
        task: The task that trains the family (``plasm.tasks``), called with the model and, by name, its options: those
            of ``task_args`` in the recipe.
        largest: For the name of an argument of the constructor, the largest value that is believed of a stranger's
            config.json, where that of every argument is too large: a depth, say.
        former_defaults: Arguments of the constructor that had another default once, and that default, which is what a
            config.json means that does not state them.
        checkpoint_filter_fn: timm's: maps a foreign state dict (other names of the same tensors) and the model to the
            model's own; gives back what is the model's own already.
    """

    title: str
    url: str
    citation: str
    authors: str = ""
    recipes: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    task: Callable[..., Task] = Prediction
    largest: Mapping[str, int] = field(default_factory=dict)
    former_defaults: Mapping[str, Any] = field(default_factory=dict)
    checkpoint_filter_fn: Filter | None = None

    def default_cfgs(self, input_sizes: Mapping[str, Size], first_conv: str | None = None, **cfg: Any) -> Any:
        """Configurations by timm's convention: of each constructor, and of each of its published weights.

        Models of the manifest get a source, so that ``timm.list_models(pretrained=True)`` lists them and no others.

        Args:
            input_sizes: (C, H, W) for the name of each constructor.
            first_conv: Name of the convolution that sees the image, which timm adapts to other channels; None if there
                is none.
            **cfg: Other entries of timm's ``PretrainedCfg``, the same for all.
        """
        described = {name: self._cfg(size, first_conv=first_conv, **cfg) for name, size in input_sizes.items()}
        rows = [row for row in weights.entries() if row.model in input_sizes]
        without = {name: entry for name, entry in described.items() if not weights.tags(name)}
        return generate_default_cfgs({**without, **{row.name: described[row.model] | _source(row) for row in rows}})

    def create(
        self,
        model_cls: type[Model],
        variant: str,
        pretrained: bool,
        defaults: Mapping[str, Any],
        asked: Mapping[str, Any],
    ) -> Model:
        """Make a model, with weights if they are asked for: what every constructor returns.

        Args:
            model_cls: Its class.
            variant: Name of the constructor.
            pretrained: Whether it gets weights.
            defaults: Arguments of the class that make the variant.
            asked: What the constructor was called with besides: arguments of the class, and timm's own.

        Raises:
            plasm.weights.WeightsNotFoundError: If there are no such weights.
            OSError: If a file of weights is damaged or cannot be had.
            ValueError: If configuration, weights and model disagree.
        """
        asked = _without_timms(model_cls, variant, _without_former(model_cls, variant, asked))
        source = resolve_pretrained(
            model_cls, variant, pretrained, defaults, asked, self.adapters, self.largest, self.former_defaults,
            self.checkpoint_filter_fn,
        )  # fmt: skip
        kwargs = {**source.defaults, **asked}
        # Every argument, so that no later change of a default changes a saved model; timm adds what it was given.
        parameters = inspect.signature(model_cls).parameters.values()
        spelled = {p.name: kwargs.get(p.name, p.default) for p in parameters if p.name not in ("device", "dtype")}
        if _describing.get():
            channels = kwargs.get("in_chans", get_pretrained_cfg(variant).input_size[0])
            described: Any = nn.Module()
            described._model_args = {**spelled, "in_chans": channels}
            return described
        model: Any = build_model_with_cfg(
            model_cls,
            variant,
            pretrained,
            pretrained_filter_fn=source.filter_fn,
            kwargs_filter=("num_classes", "global_pool"),
            feature_cfg={"feature_cls": _get_features, "out_indices": None},
            **{
                **kwargs,
                "pretrained_cfg": source.cfg,
                "pretrained_cfg_overlay": source.overlay,
                "pretrained_model_args": source.model_args,
            },
        )
        model.pretrained_cfg.pop("state_dict", None)
        model._model_args = {**spelled, "in_chans": getattr(model, "in_chans", spelled["in_chans"])}
        return model

    def _cfg(self, input_size: Size, **cfg: Any) -> dict[str, Any]:
        channels = input_size[0]
        paper = re.search(r"arxiv\.org/abs/([0-9.]+)", self.url)
        return {
            "input_size": input_size,
            "num_classes": 0,
            "pool_size": None,
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "mean": (0.0,) * channels,
            "std": (1.0,) * channels,
            "classifier": None,
            "license": "apache-2.0",
            "paper_name": self.title,
            "paper_ids": f"arXiv:{paper[1]}" if paper else None,
            **cfg,
        }


# What timm's scripts pass to every model, and what of it means nothing to a model that does not take it.
_REGULARIZATION = ("drop_rate", "drop_path_rate", "drop_block_rate")
_SIZES = ("img_size",)


def _without_timms(model_cls: type[nn.Module], variant: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments without those of timm's scripts that the class does not have and that change nothing.

    Raises:
        ValueError: If one of them asks for what the class does not have.
    """
    foreign = {name for name in (*_REGULARIZATION, *_SIZES) if name not in inspect.signature(model_cls).parameters}
    for name in foreign.intersection(_REGULARIZATION):
        if asked.get(name):
            raise ValueError(f"{variant} has no {name}, which is {asked[name]}: leave it out, or 0")
    # A model that does not take the size of the frames takes any.
    return {name: value for name, value in asked.items() if name not in foreign}


def _without_former(model_cls: type[nn.Module], variant: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments without the options of training that a config.json states which an earlier plasm wrote.

    Raises:
        TypeError: If it is not a config.json that states one.
    """
    former = weights.FORMER_ARGUMENTS - set(inspect.signature(model_cls).parameters)
    stated = asked.get("pretrained_model_args") or {}
    if wrong := sorted(name for name in former.intersection(asked) if name not in stated):
        raise TypeError(
            f"{variant} has no argument {wrong[0]}, which is an option of training: --task-arg {wrong[0]}=..."
        )
    out = {name: value for name, value in asked.items() if name not in former}
    if stated:
        out["pretrained_model_args"] = {name: value for name, value in stated.items() if name not in former}
    return out


def arguments_of(name: str) -> dict[str, Any]:
    """All arguments with which a model of this package would be made, which is not done.

    Args:
        name: As ``timm.create_model`` takes it: of a constructor, or "local-dir:FOLDER" or "hf-hub:OWNER/NAME".

    Raises:
        OSError: If a file is damaged or cannot be had.
        ValueError: If its configuration is none of such a model.
    """
    token = _describing.set(True)
    try:
        described: Any = timm.create_model(name)
    finally:
        _describing.reset(token)
    return dict(described._model_args)


def family_of(name: str) -> Family | None:
    """The family of a model: ``FAMILY`` of the module that its constructor lies in, plasm's or a user's.

    Args:
        name: Of the constructor, with or without a tag.

    Returns:
        None if no such model is registered, or its module has no such record.
    """
    family = getattr(sys.modules.get(_module_of(name)), "FAMILY", None)
    return family if isinstance(family, Family) else None


def is_plasm_model(name: str) -> bool:
    """Whether a name, with or without a tag, is that of a model of this package, rather than of timm or a user."""
    return _module_of(name).startswith(f"{_PACKAGE}.")


def is_timm_model(name: str) -> bool:
    """Whether a name, with or without a tag, is that of a model of timm's own."""
    return _module_of(name).startswith("timm.")


def recipe(name: str, command: str) -> Mapping[str, Any]:
    """What a model's family sets for a phase, by field of its configuration; nothing if it sets nothing.

    Args:
        name: Of the constructor, with or without a tag.
        command: "pretrain" or "train".
    """
    family = family_of(name)
    return family.recipes.get(name.partition(".")[0], {}).get(command, {}) if family else {}


def make_task(name: str, model: nn.Module, **options: Any) -> Task:
    """The task that trains a model: its family's, with the options of its recipe, or ``Prediction``.

    Args:
        name: Of the constructor, with or without a tag.
        model: What is trained.
        **options: Of the task, over those of the recipe.

    Raises:
        ValueError: If the task has no such option, or the model cannot be trained so.
    """
    family = family_of(name)
    kind = family.task if family else Prediction
    known = inspect.signature(kind).parameters
    if unknown := [option for option in options if option not in known]:
        have = ", ".join(option for option in list(known)[1:] if option != "rollout") or "none"
        raise ValueError(f"the task of {name} has no option {weights.listed(unknown)}; it has: {have}")
    return kind(model, **{**recipe(name, "train").get("task_args", {}), **options})


def _get_features(model: Any, out_indices: Any = None, **cfg: Any) -> nn.Module:
    """For ``features_only``: all that ``feature_info`` lists by default, where timm would take the first five."""
    indices = range(len(model.feature_info)) if out_indices is None else out_indices
    return FeatureGetterNet(model, tuple(indices) if not isinstance(indices, int) else indices, **cfg)


def _module_of(name: str) -> str:
    return timm.models.model_entrypoint(name).__module__ if timm.is_model(name) else ""


def _source(row: weights.Entry) -> dict[str, Any]:
    if row.repo is None:
        return {"file": str(weights.manifest.FOLDER / row.file), "license": row.license}
    return {"hf_hub_id": f"{row.repo}@{row.revision}", "hf_hub_filename": row.file, "license": row.license}
