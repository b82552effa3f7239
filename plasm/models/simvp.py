"""SimVP: simpler yet better video prediction, with its translators of two versions and of ten MetaFormers.

Papers: Gao, Tan, Wu, Li, CVPR 2022, arXiv 2206.05099 (v1, Inception); Tan, Gao, Li, Li, arXiv 2211.12509 (v2, gSTA);
the others as OpenSTL has them (Tan et al., NeurIPS 2023, arXiv 2306.11249), whose weights load: see ``openstl``.

An Encoder turns each frame into features, a Translator turns the features of T frames, as channels of one plane, into
those of the T frames that follow, a Decoder turns features into frames, with the Encoder's first features at hand.

Shapes: B clips, T input frames, T' output frames, C image channels, Cs encoder channels (hid_S), Ct translator channels
(hid_T), H x W pixels, h = ceil(H / reduction), w likewise. Pixels are floats in [0, 1].
"""

import ast
import csv
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

import timm
import torch
from einops import rearrange
from torch import Tensor, nn

from plasm.layers.conv import run_block
from plasm.layers.inception import InceptionBlock
from plasm.layers.simvp_coders import Coder, SimVPDecoder, SimVPEncoder
from plasm.layers.translator_blocks import BLOCKS, BlockPosition, TranslatorBlock

from ._adapters import adapt_out_channels
from ._base import VideoModel, check_chances, check_odd, check_positive, match_layers
from ._benchmarks import BENCHMARKS, TINY, recipes
from ._family import Constructor, Family, paper
from ._untrusted import no_number, whole

__all__ = ["InceptionTranslator", "MetaTranslator", "SimVP"]

Model = TypeVar("Model", bound="SimVP")


class InceptionTranslator(nn.Module):
    """A U-Net of 2 N Inception blocks, all at one size (v1, "IncepU").

    Args:
        in_dim: T * Cs, which come out as well.
        dim: Ct.
        depth: N, blocks of each half.
        kernel_sizes: Sides of the (odd) kernels of a block.
        num_groups: Groups of its convolutions.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        depth: int,
        kernel_sizes: Sequence[int] = (3, 5, 7, 11),
        num_groups: int = 8,
        **dd: Any,
    ) -> None:
        super().__init__()
        self.depth, self.grad_checkpointing = depth, False
        self.out_dims = [dim] * (2 * depth - 1) + [in_dim]
        ins = [in_dim] + [dim] * depth + [2 * dim] * (depth - 1)
        self.blocks = nn.ModuleList(
            InceptionBlock(before, dim // 2, after, kernel_sizes, num_groups, **dd)
            for before, after in zip(ins, self.out_dims, strict=True)
        )

    def forward_blocks(self, x: Tensor, num_blocks: int | None = None) -> list[Tensor]:
        """(B, T * Cs, h, w) to the outputs of the first ``num_blocks`` of the 2 N blocks, all by default."""
        depth = self.depth
        outputs: list[Tensor] = []
        for index, block in enumerate(self.blocks[:num_blocks]):
            if index > depth:
                # Block depth + 1 + k of the second half sees block depth - 2 - k of the first.
                x = torch.cat([x, outputs[2 * depth - 1 - index]], 1)
            x = run_block(block, x, recompute=self.grad_checkpointing)
            outputs.append(x)
        return outputs


class MetaTranslator(nn.Module):
    """N blocks of one kind: the first has T * Cs channels and gives Ct, the last gives T * Cs again.

    Args:
        name: Of ``plasm.layers.translator_blocks.BLOCKS``.
        in_dim: T * Cs.
        dim: Ct.
        depth: N.
        size: (h, w), which the MLP-Mixer fixes, and by which Swin chooses its windows.
        mlp_ratio: Width of the MLPs, in multiples of their input's.
        drop: Dropout rate.
        drop_path: Chances that a clip skips a branch in training: of the first block and of the last; those between lie
            on a line.
    """

    def __init__(
        self,
        name: str,
        in_dim: int,
        dim: int,
        depth: int,
        size: tuple[int, int],
        mlp_ratio: float = 8.0,
        drop: float = 0.0,
        drop_path: tuple[float, float] = (0.0, 0.0),
        **dd: Any,
    ) -> None:
        super().__init__()
        self.name, self.grad_checkpointing = name, False
        self.out_dims = [dim] * (depth - 1) + [in_dim]
        ins = [in_dim] + [dim] * (depth - 1)
        first, last = drop_path
        rates = [first + (last - first) * index / (depth - 1) for index in range(depth)]
        self.blocks = nn.ModuleList(
            TranslatorBlock(name, BlockPosition(before, after, index, size, mlp_ratio, drop, rates[index], dd))
            for index, (before, after) in enumerate(zip(ins, self.out_dims, strict=True))
        )

    def forward_blocks(self, x: Tensor, num_blocks: int | None = None) -> list[Tensor]:
        """(B, T * Cs, h, w) to the outputs of the first ``num_blocks`` of the N blocks, all by default."""
        outputs: list[Tensor] = []
        for block in self.blocks[:num_blocks]:
            x = run_block(block, x, recompute=self.grad_checkpointing)
            outputs.append(x)
        return outputs


class SimVP(VideoModel):
    """SimVP with any of its translators.

    The network maps T frames to T. As OpenSTL does, fewer are cut from them, and for more the whole forecast is fed
    back, in training too. A model of T' < T goes on from its first T' frames alone, for it learned no others.
    BatchNorm, which gSTA, TAU, VAN, MogaNet, ConvMixer and UniFormer have, sees all clips of a batch in training.

    Args:
        in_chans: C.
        in_frames: T.
        out_frames: T', any number.
        out_chans: Channels of the output; C by default.
        img_size: (H, W) or one number. The MLP-Mixer takes frames of this size alone (or of one that padding brings to
            it), Swin chooses its windows by it, the other translators do not care.
        encoder_dim: Cs.
        translator_dim: Ct.
        encoder_depth: Blocks of the Encoder and of the Decoder; every second one halves (doubles) H and W, and an odd
            number is rounded down, as OpenSTL does.
        translator_depth: N, blocks of the Translator, from 2; "incepu" has 2 N.
        translator: "incepu", "gsta", "tau", "convmixer", "convnext", "hornet", "mlpmixer", "moganet", "poolformer",
            "swin", "uniformer", "van" or "vit"; "gsta" by default.
        mlp_ratio: Width of the Translator's MLPs, in multiples of their input's.
        encoder_kernel_size: Side of the Encoder's (odd) kernels; phase 1 needs 1 or 3.
        decoder_kernel_size: Side of the Decoder's (odd) kernels.
        coder: "openstl", or "original", of the first paper's own code: LeakyReLU, transposed convolutions, the first
            features joined as channels. With translator="incepu" and translator_depth=3 that is its model of 22.3 M.
        inception_kernel_sizes: Sides of the (odd) kernels of an Inception block.
        inception_groups: Groups of an Inception block's convolutions, and of its norms; one where these do not divide
            the channels.
        drop_rate: Dropout rate of the Translator.
        drop_path_rate: Chance that a clip skips a branch of the last block of the Translator in training; it grows to
            that from .01, or from 0 if it is less. (OpenSTL starts from .01 even where the last is 0: for that, give
            both, ``(0.01, 0.0)``.)
        device: Device of the parameters.
        dtype: Data type of the parameters.

    Raises:
        ValueError: If an option is unknown, a count not positive, a kernel not odd, a depth less than 2, channels do
            not divide as a layer needs it, or T' is more than T and the output, which has other channels than the
            input, cannot be fed back.
    """

    head_modules = ("decoder",)
    adaptable = ("in_chans",)
    group_matcher = match_layers(r"^encoder", r"^translator\.blocks", r"^decoder")
    default_translator = "gsta"

    def __init__(
        self,
        in_chans: int = 1,
        in_frames: int = 10,
        out_frames: int = 10,
        out_chans: int | None = None,
        img_size: int | tuple[int, int] = 64,
        encoder_dim: int = 64,
        translator_dim: int = 512,
        encoder_depth: int = 4,
        translator_depth: int = 8,
        translator: str | None = None,
        mlp_ratio: float = 8.0,
        encoder_kernel_size: int = 3,
        decoder_kernel_size: int = 3,
        coder: Coder = "openstl",
        inception_kernel_sizes: Sequence[int] = (3, 5, 7, 11),
        inception_groups: int = 8,
        drop_rate: float = 0.0,
        drop_path_rate: float | tuple[float, float] = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_chans, in_frames, out_frames, out_chans)
        check_positive(encoder_dim=encoder_dim, translator_dim=translator_dim, inception_groups=inception_groups)
        check_odd(
            encoder_kernel_size=encoder_kernel_size, decoder_kernel_size=decoder_kernel_size,
            inception_kernel_sizes=inception_kernel_sizes,
        )  # fmt: skip
        check_chances(drop_rate=drop_rate, drop_path_rate=drop_path_rate)
        if not inception_kernel_sizes:
            raise ValueError("inception_kernel_sizes has the side of a kernel or more, got none")
        translator = self.default_translator if translator is None else translator
        if translator != "incepu" and translator not in BLOCKS:
            raise ValueError(f'translator is "incepu" or one of {", ".join(sorted(BLOCKS))}, got {translator!r}')
        if encoder_depth < 2 or translator_depth < 2:
            raise ValueError(f"SimVP has depths from 2, got {encoder_depth} and {translator_depth}")
        if encoder_dim % 2:
            raise ValueError(f"the norms of SimVP have two groups, which do not divide encoder_dim = {encoder_dim}")
        if coder not in get_args(Coder):
            raise ValueError(f'coder is "openstl" or "original", got {coder!r}')
        self.check_feedback(out_frames)
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.encoder = SimVPEncoder(in_chans, encoder_dim, encoder_depth, encoder_kernel_size, coder, **dd)
        self.size_multiple = self.encoder.reduction
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.img_size = (height, width)
        joined = in_frames * encoder_dim
        self.translator: InceptionTranslator | MetaTranslator
        if translator == "incepu":
            self.translator = InceptionTranslator(
                joined, translator_dim, translator_depth, inception_kernel_sizes, inception_groups, **dd
            )
        else:
            last = drop_path_rate if isinstance(drop_path_rate, int | float) else drop_path_rate[1]
            first = min(0.01, last) if isinstance(drop_path_rate, int | float) else drop_path_rate[0]
            size = (-(-height // self.size_multiple), -(-width // self.size_multiple))
            self.translator = MetaTranslator(
                translator, joined, translator_dim, translator_depth, size, mlp_ratio, drop_rate, (first, last), **dd
            )
        self.decoder = SimVPDecoder(encoder_dim, self.out_chans, encoder_depth, decoder_kernel_size, coder, **dd)
        self.fixed_size = translator == "mlpmixer"
        dims = {f"translator.blocks.{index}": dim for index, dim in enumerate(self.translator.out_dims)}
        self.set_features(dims, self.size_multiple)

    @property
    def dynamic_size(self) -> bool:
        """Whether one exported graph can take any H and W. Not of Swin, which lays windows by them."""
        return not self.fixed_size and getattr(self.translator, "name", "") != "swin"

    def forward_blocks(self, clip: Tensor, num_blocks: int | None = None) -> list[Tensor]:
        """Outputs of the Translator's first blocks, (B, D, h, w) each, of a clip (B, T, C, H, W)."""
        return self.translator.forward_blocks(self._encode(clip)[0], num_blocks)

    def decode(self, features: Tensor, clip: Tensor | None) -> Tensor:
        """(B, T * Cs, h, w), of ``clip``, to frames of the padded size, (B, T', C', H, W)."""
        if self.out_frames > self.in_frames:
            raise NotImplementedError(
                f"the {self.out_frames} frames are of more than one forecast, each of which has features of its own"
            )
        if clip is None:
            raise ValueError("the clip's first features go past the Translator: forward_head(features, clip)")
        return self._decode(features, self._encode(clip)[1], self.out_frames)

    @property
    def feedback_frames(self) -> int:
        """As the base class has it."""
        return min(self.in_frames, self.out_frames)

    def forecast(self, clip: Tensor, num_frames: int) -> Tensor:
        """As the base class has it; where T' >= T, whole forecasts of T frames are fed back, and the last is cut."""
        if self.out_frames < self.in_frames and num_frames > self.out_frames:
            # No loss ever saw the network's frames after T'.
            return super().forecast(clip, num_frames)
        forecast: list[Tensor] = []
        while num_frames > 0:
            clip = self._next(clip, min(num_frames, self.in_frames))
            forecast.append(clip)
            num_frames -= self.in_frames
        return forecast[0] if len(forecast) == 1 else torch.cat(forecast, 1)

    def _next(self, clip: Tensor, num_frames: int) -> Tensor:
        """(B, T, C, H, W) to the first ``num_frames`` of the T frames that follow; the others are not decoded."""
        features, skip = self._encode(clip)
        return self.crop(self._decode(self.translator.forward_blocks(features)[-1], skip, num_frames), clip)

    def _decode(self, features: Tensor, skip: Tensor, num_frames: int) -> Tensor:
        """(B, T * Cs, h, w) to the first frames, (B, num_frames, C', H, W) of the padded size."""
        features = _split_frames(features, self.in_frames, num_frames)
        if num_frames < self.in_frames:
            skip = skip.unflatten(0, (-1, self.in_frames))[:, :num_frames].flatten(0, 1)
        return self.decoder(features, skip).unflatten(0, (-1, num_frames))

    def _encode(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, C, H, W) to (B, T * Cs, h, w), and the first block's output (B * T, Cs, H, W)."""
        padded = self.pad_clip(clip)
        features, first = self.encoder.forward_skip(padded.flatten(0, 1))
        size = tuple(-(-side // self.size_multiple) for side in self.img_size)
        if self.fixed_size and features.shape[-2:] != size:
            raise ValueError(
                f"this MLP-Mixer takes frames of {self.img_size[0]} x {self.img_size[1]}, got {clip.shape[-2]} x "
                f"{clip.shape[-1]}: make the model with img_size=({clip.shape[-2]}, {clip.shape[-1]})"
            )
        return _join_frames(features, self.in_frames), first

    def check_feedback(self, num_frames: int) -> None:
        """As the base class has it, of T frames at a time if T' is T or more."""
        if num_frames <= self.in_frames:
            super().check_feedback(num_frames)
        elif self.out_chans != self.in_chans:
            most = self.feedback_frames
            raise ValueError(
                f"{num_frames} frames are more than the {most} of a forecast, and its {self.out_chans} "
                f"channel(s) cannot be fed back where the model takes {self.in_chans}: ask for {most} or "
                f"fewer, or make the model with in_frames={num_frames} and out_frames={num_frames}"
            )


def _join_frames(x: Tensor, num_frames: int) -> Tensor:
    """(B * T, D, h, w) to (B, T * D, h, w), channels last in memory if that was."""
    if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return rearrange(rearrange(x, "(b t) c h w -> b h w (t c)", t=num_frames), "b h w c -> b c h w")
    return rearrange(x, "(b t) c h w -> b (t c) h w", t=num_frames)


def _split_frames(x: Tensor, num_frames: int, first: int) -> Tensor:
    """(B, T * D, h, w) to the first frames, (B * first, D, h, w), channels last in memory if that was."""
    if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        x = rearrange(x, "b c h w -> b h w c").unflatten(-1, (num_frames, -1))[..., :first, :]
        return rearrange(rearrange(x, "b h w t c -> (b t) h w c"), "n h w c -> n c h w")
    return x.unflatten(1, (num_frames, -1))[:, :first].flatten(0, 1)


# --- OpenSTL's names --------------------------------------------------------------------------------------------------

_COMMON = [
    (r"^enc\.enc\.(\d+)\.conv\.", r"encoder.blocks.\1."),
    (r"^dec\.dec\.(\d+)\.conv\.conv\.0\.", r"decoder.blocks.\1.conv."),
    (r"^dec\.dec\.(\d+)\.conv\.", r"decoder.blocks.\1."),
    (r"^dec\.readout\.", "decoder.readout."),
    (r"^hid\.enc\.(\d+)\.", r"translator.blocks.\1."),
]
_INCEPTION = [(r"\.conv1\.", ".proj."), (r"\.layers\.", ".branches.")]
_SCALES = [(r"\.(?:layer_scale_|gamma)([12])$", r".scale\1"), (r"\.sigma$", ".scale")]
_DEPTHWISE = [
    (r"\.attn\.spatial_gating_unit\.conv0\.", ".mixer.dwconv."),
    (r"\.attn\.spatial_gating_unit\.conv_spatial\.", ".mixer.dwconv_dilated."),
    (r"\.attn\.spatial_gating_unit\.conv1\.", ".mixer.pwconv."),
    (r"\.attn\.spatial_gating_unit\.fc\.0\.", ".mixer.fc1."),
    (r"\.attn\.spatial_gating_unit\.fc\.2\.", ".mixer.fc2."),
    (r"\.mlp\.dwconv\.dwconv\.", ".mlp.dwconv."),
    (r"\.attn\.value\.DW_conv0\.", ".mixer.dwconv."),
    (r"\.attn\.value\.DW_conv1\.", ".mixer.dwconv_middle."),
    (r"\.attn\.value\.DW_conv2\.", ".mixer.dwconv_far."),
    (r"\.attn\.value\.PW_conv\.", ".mixer.pwconv."),
    (r"\.attn\.proj_1\.", ".mixer.proj_in."),
    (r"\.attn\.proj_2\.", ".mixer.proj_out."),
    (r"\.attn\.(gate\.|sigma)", r".mixer.\1"),
    *_SCALES,
]
_UNIFORMER = [
    (r"\.block\.(norm\d|mlp)\.", r".block.block.\1."),
    (r"\.block\.attn\.(qkv|proj)\.", r".block.block.attn.\1."),
    (r"\.block\.gamma_([12])$", r".block.block.ls\1.gamma"),
    (r"\.block\.conv1\.", ".block.block.mixer.0."),
    (r"\.block\.attn\.(weight|bias)$", r".block.block.mixer.1.\1"),
    (r"\.block\.conv2\.", ".block.block.mixer.2."),
]
_HORNET = [
    (r"\.gnconv\.pws\.", ".mixer.pwconvs."),
    (r"\.gnconv\.", ".mixer."),
    (r"\.block\.pwconv([12])\.", r".block.mlp.fc\1."),
    *_SCALES,
]
_CONVMIXER = [(r"\.conv_dw\.", ".dwconv."), (r"\.conv_pw\.", ".pwconv."), (r"\.norm_([12])\.", r".norm\1.")]
_RENAMES: dict[str, list[tuple[str, str]]] = {
    "incepu": _INCEPTION,
    **dict.fromkeys(("gsta", "tau", "van", "moganet", "poolformer"), _DEPTHWISE),
    "uniformer": _UNIFORMER,
    "hornet": _HORNET,
    "convmixer": _CONVMIXER,
}
# Buffers that old versions of timm kept; ours computes them.
_COMPUTED = re.compile(r"\.(attn_mask|relative_position_index)$")


def checkpoint_filter_fn(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Give OpenSTL's tensors the names and shapes of a ``SimVP``; what has them already stays as it is.

    Args:
        state_dict: OpenSTL's names, ``enc.enc.0.conv.conv.weight`` and so on, without prefix.
        model: What the tensors are for, on any device.
    """
    if not any(name.startswith("enc.enc.") for name in state_dict):
        return dict(state_dict)
    translator: Any = model.translator
    incepu = isinstance(translator, InceptionTranslator)
    renames = [*_COMMON, *_RENAMES.get("incepu" if incepu else translator.name, [])]
    if incepu:
        # The second half of the U-Net follows the first.
        half = len(translator.blocks) // 2
        renames += [(rf"^hid\.dec\.{i}\.", f"translator.blocks.{half + i}.") for i in range(half)]
    own = model.state_dict()
    out: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        if _COMPUTED.search(name):
            continue
        ours = name
        for pattern, new in renames:
            ours = re.sub(pattern, new, ours)
        # Scales and linear layers of OpenSTL lack the sides of length one that ours have as 1x1 convolutions.
        like = own.get(ours)
        fits = like is not None and [n for n in like.shape if n > 1] == [n for n in tensor.shape if n > 1]
        out[ours] = tensor.reshape(like.shape) if fits and like is not None else tensor
    return out


_ALIASES = {"mlp": "mlpmixer", "moga": "moganet"}


def from_openstl(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What a configuration of OpenSTL describes; see ``plasm.models.openstl.read_config``.

    Missing keys have the defaults of OpenSTL's ``SimVP_Model``: hid_S 16, hid_T 256, N_S 4, N_T 4, gSTA. The drop path
    is what the configuration says: see ``drop_path_rate`` of ``SimVP``.

    Raises:
        ValueError: If OpenSTL has no such translator, or a value is none that the model takes.
    """
    kind = config.get("model_type", "tau" if config["method"] == "tau" else "gsta")
    translator = _ALIASES.get(kind, kind)
    try:
        args: dict[str, Any] = {
            "in_frames": config["in_shape"][0],
            "encoder_dim": whole(config, "hid_S", 16),
            "translator_dim": whole(config, "hid_T", 256),
            "encoder_depth": whole(config, "N_S", 4),
            "translator_depth": whole(config, "N_T", 4),
            "translator": translator,
            "mlp_ratio": float(config.get("mlp_ratio", 8.0)),
            "encoder_kernel_size": whole(config, "spatio_kernel_enc", 3),
            "decoder_kernel_size": whole(config, "spatio_kernel_dec", 3),
            "drop_rate": float(config.get("drop", 0.0)),
            "drop_path_rate": float(config.get("drop_path", 0.0)),
        }
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(no_number(error)) from error
    prefix = {"incepu": "simvp", "tau": "tau"}.get(translator, f"simvp_{translator}")
    name = f"{prefix}_mmnist"
    if not timm.is_model(name):
        raise ValueError(f'OpenSTL has no model_type "{kind}"; the kinds are incepu, {", ".join(sorted(BLOCKS))}')
    return name, args


# --- models -----------------------------------------------------------------------------------------------------------

# What the names begin with, and the translator.
_TRANSLATORS = {"simvp": "incepu", **{"tau" if name == "tau" else f"simvp_{name}": name for name in BLOCKS}}

# OpenSTL's configurations (commit c74deb5), a row a constructor; an empty cell is the record's default. (That of the
# MLP-Mixer for KTH names no rate, which is .001.)
with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as _file:
    _TABLE = {row.pop("model"): row for row in csv.DictReader(_file)}
_SIZES = ("encoder_dim", "translator_dim", "encoder_depth", "translator_depth", "drop_path_rate")


def column(prefix: str, name: str) -> dict[str, Any]:
    """For the benchmarks of a prefix, the numbers that OpenSTL's configurations have in a column, where they do."""
    cells = {benchmark: _TABLE[f"{prefix}_{benchmark}"][name] for benchmark in BENCHMARKS}
    return {benchmark: ast.literal_eval(cell) for benchmark, cell in cells.items() if cell}


def _recipes() -> dict[str, Any]:
    # OpenSTL's (commit c74deb5), file by file of its configs.
    found: dict[str, Any] = {}
    for prefix in (each for each in _TRANSLATORS if each != "tau"):
        tiny: dict[str, Any] | None = {} if prefix in ("simvp", "simvp_gsta") else None
        rates, batches = column(prefix, "lr"), column(prefix, "batch_size")
        found |= recipes(prefix, phase_1=True, tiny=tiny, lr=rates, batch_size=batches)
    return found


FAMILY = Family(
    module=__name__,
    **paper("gao2022simvp"),
    url="https://arxiv.org/abs/2206.05099",
    recipes=_recipes(),
    first_conv="encoder.blocks.0.conv",
    adapters={"decoder.readout.*": lambda t, model: adapt_out_channels(t, model.out_chans)},
    largest={"encoder_depth": 64, "translator_depth": 64},
    checkpoint_filter_fn=checkpoint_filter_fn,
    openstl={"simvp": from_openstl},
)

default_cfgs = FAMILY.default_cfgs


def register(family: Family, model_cls: type[Model], prefix: str, **tiny: Any) -> tuple[Constructor[Model], ...]:
    """The constructors of a translator, in the order of ``BENCHMARKS``; of the league, the one that is given."""
    sizes = {} if tiny else {name: column(prefix, name) for name in _SIZES}
    named = {TINY: tiny} if tiny else {name: {size: sizes[size][name] for size in _SIZES} for name in BENCHMARKS}
    return tuple(
        family.register(
            model_cls, f"{prefix}_{name}", **BENCHMARKS[name.removesuffix("_tiny")], translator=_TRANSLATORS[prefix],
            **args,
        )
        for name, args in named.items()
    )  # fmt: skip


_register = partial(register, FAMILY, SimVP)

simvp_mmnist, simvp_taxibj, simvp_human36m, simvp_caltech, simvp_kth = _register("simvp")
(
    simvp_convmixer_mmnist, simvp_convmixer_taxibj, simvp_convmixer_human36m, simvp_convmixer_caltech,
    simvp_convmixer_kth,
) = _register("simvp_convmixer")  # fmt: skip
(
    simvp_convnext_mmnist, simvp_convnext_taxibj, simvp_convnext_human36m, simvp_convnext_caltech, simvp_convnext_kth,
) = _register("simvp_convnext")  # fmt: skip
simvp_gsta_mmnist, simvp_gsta_taxibj, simvp_gsta_human36m, simvp_gsta_caltech, simvp_gsta_kth = _register("simvp_gsta")
(
    simvp_hornet_mmnist, simvp_hornet_taxibj, simvp_hornet_human36m, simvp_hornet_caltech, simvp_hornet_kth,
) = _register("simvp_hornet")  # fmt: skip
(
    simvp_mlpmixer_mmnist, simvp_mlpmixer_taxibj, simvp_mlpmixer_human36m, simvp_mlpmixer_caltech, simvp_mlpmixer_kth,
) = _register("simvp_mlpmixer")  # fmt: skip
(
    simvp_moganet_mmnist, simvp_moganet_taxibj, simvp_moganet_human36m, simvp_moganet_caltech, simvp_moganet_kth,
) = _register("simvp_moganet")  # fmt: skip
(
    simvp_poolformer_mmnist, simvp_poolformer_taxibj, simvp_poolformer_human36m, simvp_poolformer_caltech,
    simvp_poolformer_kth,
) = _register("simvp_poolformer")  # fmt: skip
simvp_swin_mmnist, simvp_swin_taxibj, simvp_swin_human36m, simvp_swin_caltech, simvp_swin_kth = _register("simvp_swin")
(
    simvp_uniformer_mmnist, simvp_uniformer_taxibj, simvp_uniformer_human36m, simvp_uniformer_caltech,
    simvp_uniformer_kth,
) = _register("simvp_uniformer")  # fmt: skip
simvp_van_mmnist, simvp_van_taxibj, simvp_van_human36m, simvp_van_caltech, simvp_van_kth = _register("simvp_van")
simvp_vit_mmnist, simvp_vit_taxibj, simvp_vit_human36m, simvp_vit_caltech, simvp_vit_kth = _register("simvp_vit")
(simvp_mmnist_tiny,) = _register("simvp", encoder_dim=16, translator_dim=160, translator_depth=4)
(simvp_gsta_mmnist_tiny,) = _register(
    "simvp_gsta", encoder_dim=16, translator_dim=256, translator_depth=4, mlp_ratio=4.0
)
