"""Pretrained weights of a model: found, checked, and adapted to other frames and channels.

The file is found, read once, hashed and compared here; timm opens none. Weights of other people
(names "hf-hub:..." and "local-dir:...") come with a config.json, of which little is trusted: see ``_untrusted``.
"""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timm.models import PretrainedCfg, get_arch_pretrained_cfgs, get_pretrained_cfg
from torch import Tensor, nn

from plasm import weights
from plasm.files import listed

from ._adapters import Adapter
from ._untrusted import (
    NO_SOURCE,
    SOURCES,
    check_arguments,
    check_count,
    describe_input,
    empty_model,
    input_channels,
    parameters_of,
)

if TYPE_CHECKING:
    from ._family import Constructor

_logger = logging.getLogger(__name__)

_ADAPTED = ("in_chans", "out_chans", "in_frames", "out_frames")
Filter = Callable[[dict[str, Tensor], Any], dict[str, Tensor]]
"""Maps a state dict of other names and the model (perhaps on the meta device) to the model's own names."""


@dataclass(frozen=True)
class Pretrained:
    """Arguments and weights of a model.

    Attributes:
        arguments: Of the constructor, those in which published weights differ from it among them.
        timms: ``pretrained_cfg`` and the like, for ``build_model_with_cfg``.
        fit: Gives the weights in the shapes of a model; None if none are wanted.
    """

    arguments: dict[str, Any]
    timms: dict[str, Any]
    fit: Callable[[nn.Module], dict[str, Tensor]] | None = None


def resolve_pretrained(constructor: "Constructor[Any]", pretrained: bool, kwargs: Mapping[str, Any]) -> Pretrained:
    """Find, check and prepare the weights of a model before it is built; errors are those of ``Constructor``.

    Args:
        constructor: Of the model.
        pretrained: Whether weights are wanted. Without, only a configuration of unknown origin is checked.
        kwargs: What the constructor was called with, timm's own arguments among them.
    """
    variant, model_cls, defaults = constructor.__name__, constructor.model_cls, constructor.defaults
    given, overlay = _registered_tag(variant, kwargs.get("pretrained_cfg")), kwargs.get("pretrained_cfg_overlay")
    cfg, origin = (given, {}) if given is None or isinstance(given, str) else describe_input(variant, given)
    named = {key: value for key, value in (overlay or {}).items() if key in NO_SOURCE and value}
    # A source that the user names stands for the one of the name.
    where = named if any(key in named for key in SOURCES) else {**origin, **named}
    tag = cfg.get("tag") if isinstance(cfg, dict) else cfg
    if not where and (pretrained or tag):
        defaults = {**defaults, **published_arguments(variant, tag)}
    config = f"the config.json of {origin.get('hf_hub_id') or origin.get('file')}"
    stated = kwargs.get("pretrained_model_args")
    in_chans = get_pretrained_cfg(variant).input_size[0] if not isinstance(cfg, dict) else input_channels(cfg, config)
    source_args = {**defaults, "in_chans": in_chans, **(stated or {})}
    if origin.get("source") == "hf-hub":
        _check_hub_config(origin["hf_hub_id"], kwargs.get("cache_dir"))
    if origin:
        check_arguments(model_cls, source_args, constructor.family.largest, config)
        check_count(empty_model(model_cls, source_args, config), config)
    if not pretrained:
        if isinstance(cfg, str) and cfg:
            # timm's error of a tag that there is not names none that there are.
            weights.entry(variant, cfg)
        return Pretrained(dict(defaults), {"pretrained_cfg": cfg})
    tensors, file = _read(variant, tag, where, kwargs.get("cache_dir"))
    what = str(file or "the state_dict")
    sources = [source_args]
    own_args = {key: kwargs[key] for key in parameters_of(model_cls) if key in kwargs}
    target_args = {**source_args, **own_args}
    if not origin and where and target_args != source_args:
        # A file that a user names himself, and that no config.json describes, may be of the model he asks for, or of
        # one that differs from it in what is adapted.
        others = {key: value for key, value in own_args.items() if key not in _ADAPTED}
        sources += [{**source_args, **others}, target_args]
    models = [empty_model(model_cls, args, config if origin else variant) for args in sources]
    own, number = _fitting(tensors, models, constructor.family.checkpoint_filter_fn, what)
    # What these weights may be adapted to: a patch of another size, say, is not adapted as other channels.
    adapted = {**sources[number], **{key: target_args[key] for key in _ADAPTED if key in target_args}}
    overlay = {**(overlay or {}), **NO_SOURCE, **({"file": str(file)} if file else {})}
    return Pretrained(
        dict(defaults),
        {"pretrained_cfg": cfg, "pretrained_cfg_overlay": overlay},
        lambda model: _adapt(own, model, model_cls, adapted, constructor.family.all_adapters, what),
    )


def _registered_tag(variant: str, given: Any) -> Any:
    """The tag of a configuration that is timm's own of published weights, or else what was given."""
    if given is None or isinstance(given, str):
        return given
    fields = given.to_dict() if isinstance(given, PretrainedCfg) else given
    registered = get_arch_pretrained_cfgs(variant).get(f"{variant}.{fields.get('tag')}")
    names = ("file", "hf_hub_id", "hf_hub_filename")
    same = registered and all(fields.get(name) == getattr(registered, name) for name in names)
    return fields["tag"] if same and fields.get("source") is None else given


def published_arguments(variant: str, tag: str | None) -> dict[str, Any]:
    """The arguments in which published weights differ from their constructor; none if there are no such weights."""
    rows = (row for row in weights.entries() if row.model == variant and tag in (None, "", row.tag))
    row = next(rows, None)
    return row.model_args if row else {}


def _read(
    variant: str, tag: str | None, where: Mapping[str, Any], cache_dir: Path | str | None
) -> tuple[dict[str, Tensor], Path | None]:
    """The tensors, and the file they are in. Whatever names a source, no pickle is opened."""
    if where.get("state_dict"):
        return where["state_dict"], None
    if where.get("url"):
        raise ValueError(f"{where['url']}: plasm loads weights from files, folders and the Hub, not from addresses")
    if where.get("source") == "local-dir":
        return weights.load_folder(Path(where["file"]))
    if where.get("file"):
        _refuse_pickle(where["file"])
        file = Path(where["file"])
        return weights.load_tensors(file), file
    if where.get("hf_hub_id"):
        file, sha256 = _of_hub(where["hf_hub_id"], where.get("hf_hub_filename") or "model.safetensors", cache_dir)
        return weights.load_tensors(file, sha256 or weights.cached_sha256(file)), file
    file = weights.find(variant, tag, cache_dir)
    return weights.load_tensors(file, weights.entry(variant, tag).sha256), file


def _refuse_pickle(name: str) -> None:
    if not str(name).endswith(".safetensors"):
        raise ValueError(f"{name} is no .safetensors file, the only kind plasm loads; `plasm convert` makes one of it")


def _of_hub(name: str, filename: str, cache_dir: Path | str | None) -> tuple[Path, str | None]:
    """The weights of the very commit that config.json came from, though a branch may have moved on; their sha256."""
    _refuse_pickle(filename)
    repo, _, revision = name.partition("@")
    config = weights.cached_file(repo, "config.json", revision or None, cache_dir)
    if config is None:
        return weights.fetch(repo, filename, revision or None, None, cache_dir), None
    commit = config.parent.name if re.fullmatch("[0-9a-f]{40}", config.parent.name) else revision or None
    # One of timm's own says nothing of the weights; then what the Hub says counts.
    stated = weights.read_model_config(config).get("weights", {})
    sha256 = stated.get("sha256") if stated.get("file", filename) == filename else None
    return weights.fetch(repo, filename, commit, sha256, cache_dir), sha256


def _check_hub_config(name: str, cache_dir: Path | str | None) -> None:
    """Look at what timm has read already, before anything in it is used."""
    repo, _, revision = name.partition("@")
    config = weights.cached_file(repo, "config.json", revision or None, cache_dir)
    if config is not None:
        weights.check_cached(config, f"config.json of {repo}")


def _fitting(
    tensors: dict[str, Tensor], models: list[nn.Module], checkpoint_filter_fn: Filter | None, what: str
) -> tuple[dict[str, Tensor], int]:
    """The tensors under the names of the first of these models that they are of, and its number.

    The error is that of the last.
    """
    for number, model in enumerate(models):
        try:
            # A filter refuses tensors of another variant, too.
            own = checkpoint_filter_fn(tensors, model) if checkpoint_filter_fn else tensors
            weights.check_tensors(own, model.state_dict(), what)
        except ValueError:
            if model is models[-1]:
                raise
        else:
            return own, number
    raise AssertionError("the last model is the last try")


def _adapt(
    state: dict[str, Tensor],
    model: Any,
    model_cls: type[nn.Module],
    args: Mapping[str, Any],
    adapters: Mapping[str, Adapter],
    what: str,
) -> dict[str, Tensor]:
    """Make fit what may be made fit, say so, and refuse the rest; ``args`` are of what adapting alone can give."""
    own, out = model.state_dict(), dict(state)
    misfits = [name for name in own if name in out and own[name].shape != out[name].shape]
    found = {name: next((a for key, a in adapters.items() if fnmatchcase(name, key)), None) for name in misfits}
    if own.keys() != out.keys() or None in found.values() or (misfits and not _is_made_by(model_cls, args, own)):
        # Of another architecture: each misfit is to be listed as it is.
        weights.check_tensors(out, own, what)
    for name, adapter in found.items():
        # Sums and means are not rounded to half precision again, in which the file may be.
        out[name] = adapter(out[name].float(), model) if adapter else out[name]
    weights.check_tensors(out, own, what)
    if misfits:
        shapes = (f"{name} {tuple(state[name].shape)} -> {tuple(own[name].shape)}" for name in misfits)
        _logger.warning("%s: loaded as they are all tensors but %d, adapted: %s", what, len(misfits), listed(shapes))
    return out


def _is_made_by(model_cls: type[nn.Module], args: Mapping[str, Any], own: Mapping[str, Tensor]) -> bool:
    try:
        made = empty_model(model_cls, args, model_cls.__name__).state_dict()
    except ValueError:
        return False
    return {name: tensor.shape for name, tensor in own.items()} == {name: made[name].shape for name in made}
