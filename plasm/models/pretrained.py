"""How a model comes by its weights: from where, checked against what, and adapted to frames and channels asked for.

The file is found, read once, hashed and compared here; timm gets the tensors and opens no file. Weights of other people
(names "hf-hub:..." and "local-dir:...") come with a config.json, of which little is believed: the arguments of the
model's constructor and what describes its input, in sizes that a model can have.

Shapes: T input frames, T' output frames, C channels, D features of a frame, K features in or out of the layer that is
adapted, G groups of C channels, channels innermost: the pixels of a patch, those of several frames, or 1.
"""

import inspect
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, repeat
from timm.models import PretrainedCfg, adapt_input_conv, get_arch_pretrained_cfgs, get_pretrained_cfg
from torch import Tensor, nn

from plasm import weights

__all__ = [
    "Adapter",
    "Filter",
    "Pretrained",
    "adapt_in_channels",
    "adapt_in_frames",
    "adapt_out_channels",
    "adapt_out_frames",
    "check_count",
    "check_sizes",
    "resolve_pretrained",
]

_logger = logging.getLogger(__name__)

# Of a stranger's configuration; what a user asks for himself is his own affair.
_LARGEST_ARGUMENT = 1 << 16
_LONGEST_ARGUMENT = 64
_MOST_PARAMETERS = 1_000_000_000
# What timm's scripts pass to every model, and timm records, though a class may not have it.
_TIMM_ARGUMENTS = {"num_classes", "global_pool", "drop_rate", "drop_path_rate", "drop_block_rate", "img_size"}
_BELIEVED = ("input_size", "mean", "std", "tag", "license", "description", "origin_url", "paper_name", "paper_ids")
_ADAPTED = ("in_chans", "out_chans", "in_frames", "out_frames")
_SOURCES = ("state_dict", "file", "hf_hub_id", "url")
Adapter = Callable[[Tensor, Any], Tensor]
"""Maps a tensor of a checkpoint and the model that is to take it to the tensor in the model's shape."""
Filter = Callable[[dict[str, Tensor], Any], dict[str, Tensor]]
"""Maps a state dict of other names and the model (perhaps on the meta device) to the model's own names."""
# In place of a file that timm would open once more: our filter gives it the tensors that were checked.
_CHECKED = {"checked": True}
_NO_SOURCE: dict[str, Any] = {"source": None, "custom_load": False, "hf_hub_filename": None, **dict.fromkeys(_SOURCES)}


@dataclass(frozen=True)
class Pretrained:
    """What ``build_model_with_cfg`` is to be told.

    Attributes:
        defaults: Arguments of the constructor, those in which published weights differ from it among them.
        cfg: Its ``pretrained_cfg``: a tag, a configuration, or None.
        overlay: Its ``pretrained_cfg_overlay``.
        filter_fn: Its ``pretrained_filter_fn``.
        model_args: Its ``pretrained_model_args``.
    """

    defaults: dict[str, Any]
    cfg: str | dict[str, Any] | None
    overlay: dict[str, Any] | None
    filter_fn: Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]] | None
    model_args: dict[str, Any] | None


def resolve_pretrained(
    model_cls: type[nn.Module],
    variant: str,
    pretrained: bool,
    defaults: Mapping[str, Any],
    asked: Mapping[str, Any],
    adapters: Mapping[str, Adapter],
    largest: Mapping[str, int],
    former_defaults: Mapping[str, Any],
    checkpoint_filter_fn: Filter | None = None,
) -> Pretrained:
    """Find, check and prepare the weights of a model before it is built.

    Args:
        model_cls: Class of the model.
        variant: Name of the constructor.
        pretrained: Whether weights are wanted. Without, only a stranger's configuration is checked.
        defaults: Arguments of the constructor.
        asked: What the constructor was called with, timm's own arguments among them.
        adapters: As ``Family.adapters``.
        largest: As ``Family.largest``.
        former_defaults: As ``Family.former_defaults``.
        checkpoint_filter_fn: As ``Family.checkpoint_filter_fn``.

    Raises:
        plasm.weights.WeightsNotFoundError: If there are no such weights.
        OSError: If a file is damaged or cannot be had.
        ValueError: If configuration, weights and model disagree.
    """
    given, overlay = _registered_tag(variant, asked.get("pretrained_cfg")), asked.get("pretrained_cfg_overlay")
    cfg, origin = (given, {}) if given is None or isinstance(given, str) else _disarm(variant, given)
    named = {key: value for key, value in (overlay or {}).items() if key in _NO_SOURCE and value}
    # A source that the user names stands for the one of the name.
    where = named if any(key in named for key in _SOURCES) else {**origin, **named}
    tag = cfg.get("tag") if isinstance(cfg, dict) else cfg
    if not where and (pretrained or tag):
        defaults = {**defaults, **_published_args(variant, tag)}
    config = f"the config.json of {origin.get('hf_hub_id') or origin.get('file')}"
    stranger_args = asked.get("pretrained_model_args")
    if stranger_args:
        defaults = {**defaults, **former_defaults}
    in_chans = get_pretrained_cfg(variant).input_size[0] if not isinstance(cfg, dict) else _channels(cfg, config)
    source_args = {**defaults, "in_chans": in_chans, **(stranger_args or {})}
    if origin.get("source") == "hf-hub":
        _check_hub_config(origin["hf_hub_id"], asked.get("cache_dir"))
    if origin:
        _check_arguments(model_cls, source_args, largest, config)
    if not pretrained:
        return Pretrained(dict(defaults), cfg, overlay, None, stranger_args)
    tensors, file = _read(variant, tag, where, asked.get("cache_dir"))
    what = str(file or "the state_dict")
    sources = [source_args]
    own_args = {key: asked[key] for key in _parameters(model_cls) if key in asked}
    target_args = {**source_args, **own_args}
    if not origin and where and target_args != source_args:
        # A file that a user names himself, and that no config.json describes, may be of the model he asks for, or of
        # one that differs from it in what is adapted.
        others = {key: value for key, value in own_args.items() if key not in _ADAPTED}
        sources += [{**source_args, **others}, target_args]
    models = [_empty_model(model_cls, args, config if origin else variant) for args in sources]
    own, number = _fitting(tensors, models, checkpoint_filter_fn, what)
    # What may be asked for of these weights: a patch of another size, say, is not adapted as other channels.
    adapted = {**sources[number], **{key: target_args[key] for key in _ADAPTED if key in target_args}}
    source = {"state_dict": _CHECKED, **({"file": str(file)} if file else {})}
    return Pretrained(
        dict(defaults),
        cfg,
        {**(overlay or {}), **_NO_SOURCE, **source},
        lambda _, model: _adapt(own, model, model_cls, adapted, adapters, what),
        stranger_args,
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


def _published_args(variant: str, tag: str | None) -> dict[str, Any]:
    """In what published weights differ from their constructor; that there are none is said when they are read."""
    rows = (row for row in weights.entries() if row.model == variant and tag in (None, "", row.tag))
    row = next(rows, None)
    return row.model_args if row else {}


def _disarm(variant: str, given: Mapping[str, Any] | PretrainedCfg) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of a configuration, what describes the input; and apart, where it came from."""
    fields: Mapping[str, Any] = given.to_dict() if isinstance(given, PretrainedCfg) else given
    cfg = get_pretrained_cfg(variant).to_dict(remove_source=True)
    cfg |= {key: fields[key] for key in _BELIEVED if fields.get(key) is not None}
    # timm names the source of a config.json itself; what else that file says of sources is not heard.
    heard = {"hf-hub": ("source", "hf_hub_id"), "local-dir": ("source", "file")}.get(
        fields.get("source") or "", _NO_SOURCE
    )
    return {**cfg, "architecture": variant}, {key: fields[key] for key in heard if fields.get(key)}


def _channels(cfg: Mapping[str, Any], what: str) -> int:
    size = cfg["input_size"]
    if not (
        isinstance(size, list | tuple)
        and len(size) == 3
        and all(type(n) is int and 0 < n <= _LARGEST_ARGUMENT for n in size)
    ):
        raise ValueError(f"{what} has an input_size (C, H, W) of {weights.shown(repr(size))}")
    return size[0]


def _parameters(model_cls: type[nn.Module]) -> set[str]:
    return set(inspect.signature(model_cls).parameters) - {"device", "dtype"}


def _check_arguments(
    model_cls: type[nn.Module], args: Mapping[str, Any], largest: Mapping[str, int], what: str
) -> None:
    """Refuse arguments that the constructor has not, or that no model has, before anything is allocated."""
    own = _parameters(model_cls)
    known = own | _TIMM_ARGUMENTS
    if unknown := [str(name) for name in args if name not in known]:
        raise ValueError(f"{what} has arguments that a {model_cls.__name__} has not: {weights.listed(unknown)}")
    check_sizes({key: value for key, value in args.items() if key in own or key not in _TIMM_ARGUMENTS}, largest, what)
    check_count(_empty_model(model_cls, args, what), what)


def check_sizes(args: Mapping[str, Any], largest: Mapping[str, int], what: str) -> None:
    """Refuse numbers that no argument of a model has.

    Args:
        args: Of a stranger's configuration.
        largest: By name, where that is less than 65,536.
        what: Of what the error speaks.

    Raises:
        ValueError: If a number is negative or too large, or a list too long.
    """
    for name, value in args.items():
        most = largest.get(name, _LARGEST_ARGUMENT)
        numbers = value if isinstance(value, list | tuple) else [value]
        if len(numbers) > _LONGEST_ARGUMENT:
            raise ValueError(f"{what} has {len(numbers):,} values of {name}; plasm takes up to {_LONGEST_ARGUMENT}")
        if any(isinstance(number, int) and not 0 <= number <= most for number in numbers):
            raise ValueError(f"{what} has {weights.shown(name)} = {weights.shown(value)}; plasm builds it up to {most}")


def check_count(model: nn.Module, what: str) -> None:
    """Refuse a model, perhaps on the meta device, of more than 10^9 parameters; ``what`` describes it.

    Raises:
        ValueError: If it has more.
    """
    count = sum(tensor.numel() for tensor in model.state_dict().values())
    if count > _MOST_PARAMETERS:
        raise ValueError(
            f"{what} describes a model of {count:,} parameters; plasm builds it up to {_MOST_PARAMETERS:,}"
        )


def _empty_model(model_cls: type[nn.Module], args: Mapping[str, Any], what: str) -> nn.Module:
    """A model whose tensors have names and shapes, and of which nothing is allocated."""
    foreign = _TIMM_ARGUMENTS - _parameters(model_cls)
    own = {name: value for name, value in args.items() if name not in foreign}
    try:
        return model_cls(**{**own, "device": "meta"})
    except Exception as error:
        # A value of any type may be in it, and constructors trip over them in as many ways.
        raise ValueError(f"{what} describes no {model_cls.__name__}: {weights.shown(error)}") from error


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
    """Look at what timm has read already, before anything in it is believed."""
    repo, _, revision = name.partition("@")
    config = weights.cached_file(repo, "config.json", revision or None, cache_dir)
    if config is not None:
        weights.check_cached(config, f"config.json of {repo}")


def _fitting(
    tensors: dict[str, Tensor], models: list[nn.Module], checkpoint_filter_fn: Filter | None, what: str
) -> tuple[dict[str, Tensor], int]:
    """The tensors under the names of the first of these models that they are of, and its number.

    The error speaks of the last.
    """
    for number, model in enumerate(models):
        own = checkpoint_filter_fn(tensors, model) if checkpoint_filter_fn else tensors
        try:
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
    # timm adapts the first convolution, after us.
    timms = {f"{name}.weight" for name in [model.pretrained_cfg.get("first_conv")] if name}
    misfits = [name for name in own if name in out and own[name].shape != out[name].shape]
    ours = {name: next((a for key, a in adapters.items() if fnmatchcase(name, key)), None) for name in misfits}
    unknown = any(ours[name] is None and name not in timms for name in misfits)
    if own.keys() != out.keys() or unknown or (misfits and not _is_made_by(model_cls, args, own)):
        # Of another architecture: each misfit is to be listed as it is.
        weights.check_tensors(out, own, what)
    for name in misfits:
        # Sums and means are not rounded to half precision again, in which the file may be.
        out[name] = out[name].float()
        if (adapter := ours[name]) is not None:
            out[name] = adapter(out[name], model)
    weights.check_tensors(out, {**own, **{name: out[name] for name in timms}}, what)
    if misfits:
        shapes = (f"{name} {tuple(state[name].shape)} -> {tuple(own[name].shape)}" for name in misfits)
        _logger.warning(
            "%s: loaded as they are all tensors but %d, adapted: %s", what, len(misfits), weights.listed(shapes)
        )
    return out


def _is_made_by(model_cls: type[nn.Module], args: Mapping[str, Any], own: Mapping[str, Tensor]) -> bool:
    try:
        made = _empty_model(model_cls, args, model_cls.__name__).state_dict()
    except ValueError:
        return False
    return {name: tensor.shape for name, tensor in own.items()} == {name: made[name].shape for name in made}


def adapt_in_frames(weight: Tensor, in_frames: int, channels: int) -> Tensor:
    """Make the layer that joins T input frames take another number of them.

    For fewer, the frames that fall away, the oldest, count as a repetition of the oldest left: their weights are added
    to its own. Without training on, that is better than leaving them out with some weights, and worse with others.
    For more, the last T are seen as before and those before them not at all, with zeros: the forecast is then the old
    one.

    Args:
        weight: (K, T * D, 1, 1), frames outermost.
        in_frames: T asked for.
        channels: D.
    """
    frames = rearrange(weight, "o (t c) h w -> t o c h w", c=channels)
    missing = in_frames - len(frames)
    if missing >= 0:
        frames = torch.cat([frames.new_zeros(missing, *frames.shape[1:]), frames])
    else:
        frames = torch.cat([frames[: 1 - missing].sum(0, keepdim=True), frames[1 - missing :]])
    return rearrange(frames, "t o c h w -> o (t c) h w")


def adapt_out_frames(tensor: Tensor, out_frames: int, channels: int) -> Tensor:
    """Make the layer that gives T' output frames give another number of them.

    For fewer, the first of them are kept. For more, the last is repeated: the forecast stands still after T'.

    Args:
        tensor: Weight (T' * D, K, 1, 1) or bias (T' * D), frames outermost.
        out_frames: T' asked for.
        channels: D.
    """
    frames = rearrange(tensor, "(t c) ... -> t c ...", c=channels)
    more = repeat(frames[-1], "... -> t ...", t=max(0, out_frames - len(frames)))
    return rearrange(torch.cat([frames[:out_frames], more]), "t c ... -> (t c) ...")


def adapt_in_channels(weight: Tensor, in_chans: int, groups: int = 1) -> Tensor:
    """Make the layer that sees images, or patches of them, take another number of channels, as timm does.

    For one, the weights of all are added up; else they are repeated and scaled, so that the same image in all channels
    gives what one channel gave.

    Args:
        weight: (K, G * C, ...).
        in_chans: C asked for.
        groups: G.
    """
    parts = rearrange(weight, "o (g c) ... -> (o g) c ...", g=groups)
    adapted = adapt_input_conv(in_chans, parts.reshape(*parts.shape[:2], -1, 1), base_chans=parts.shape[1])
    return rearrange(adapted.reshape(len(parts), in_chans, *weight.shape[2:]), "(o g) c ... -> o (g c) ...", g=groups)


def adapt_out_channels(tensor: Tensor, out_chans: int, groups: int = 1) -> Tensor:
    """Make the layer that gives images, or patches of them, give another number of channels.

    Each new one starts as the mean of the old.

    Args:
        tensor: Weight (G * C, ...) or bias (G * C).
        out_chans: C asked for.
        groups: G.
    """
    means = rearrange(tensor, "(g c) ... -> g c ...", g=groups).mean(1)
    return repeat(means, "g ... -> (g c) ...", c=out_chans)
