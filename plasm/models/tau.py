"""TAU: SimVP with Temporal Attention Units, trained with differential divergence too.

Paper: Tan, Gao, Wu, Xu, Xia, Li, Li, CVPR 2023, arXiv 2206.12126.

Shapes: B clips, T input frames, T' output frames, C image channels, H x W pixels. Pixels are floats in [0, 1].
"""

from collections.abc import Sequence

import torch

from plasm.layers.simvp_coders import Coder
from plasm.tasks import DivergencePrediction

from .family import Family
from .pretrained import adapt_out_channels
from .registration import TINY, input_sizes, recipes, register_benchmarks
from .simvp import SimVP, checkpoint_filter_fn, from_openstl, sizes

__all__ = ["TAU", "checkpoint_filter_fn", "from_openstl"]


class TAU(SimVP):
    """SimVP with the translator "tau"; training by differential divergence (``plasm.tasks``) makes it TAU.

    Arguments as ``SimVP``.
    """

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
        translator: str = "tau",
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
        super().__init__(
            in_chans, in_frames, out_frames, out_chans, img_size, encoder_dim, translator_dim, encoder_depth,
            translator_depth, translator, mlp_ratio, encoder_kernel_size, decoder_kernel_size, coder,
            inception_kernel_sizes, inception_groups, drop_rate, drop_path_rate, device, dtype,
        )  # fmt: skip


FAMILY = Family(
    title="Temporal Attention Unit: Towards Efficient Spatiotemporal Predictive Learning",
    authors="Cheng Tan, Zhangyang Gao, Lirong Wu, Yongjie Xu, Jun Xia, Siyuan Li, Stan Z. Li",
    url="https://arxiv.org/abs/2206.12126",
    citation="""@inproceedings{tan2023tau,
  title     = {Temporal Attention Unit: Towards Efficient Spatiotemporal Predictive Learning},
  author    = {Tan, Cheng and Gao, Zhangyang and Wu, Lirong and Xu, Yongjie and Xia, Jun and Li, Siyuan and
               Li, Stan Z.},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {18770--18782},
  year      = {2023}
}""",
    # OpenSTL's (commit c74deb5), file by file of its configs; that for Human3.6M names no schedule, which is one cycle.
    recipes=recipes(
        "tau",
        lr={"mmnist": 1e-3, "taxibj": 5e-4, "human36m": 1e-3, "caltech": 1e-2, "kth": 1e-3},
        schedule={"human36m": "onecycle"},
        batch_size={"kth": 4},
        phase_1=True,
    ),
    adapters={"decoder.readout.*": lambda t, model: adapt_out_channels(t, model.out_chans)},
    task=DivergencePrediction,
    largest={"encoder_depth": 64, "translator_depth": 64},
    checkpoint_filter_fn=checkpoint_filter_fn,
)

_TINY = {"translator": "tau", "encoder_dim": 16, "translator_dim": 256, "translator_depth": 4, "mlp_ratio": 4.0}

default_cfgs = FAMILY.default_cfgs(input_sizes("tau", tiny=("tau",)), first_conv="encoder.blocks.0.conv")

globals().update(register_benchmarks(FAMILY, TAU, "tau", {**sizes("tau"), TINY: _TINY}, __name__))
