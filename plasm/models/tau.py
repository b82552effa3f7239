"""TAU: SimVP with Temporal Attention Units, trained with differential divergence too.

Paper: Tan, Gao, Wu, Xu, Xia, Li, Li, CVPR 2023, arXiv 2206.12126.

Shapes: B clips, T input frames, T' output frames, C image channels, H x W pixels. Pixels are floats in [0, 1].
"""

from dataclasses import replace

from plasm.tasks import DivergencePrediction

from ._benchmarks import recipes
from ._family import paper
from .simvp import FAMILY as SIMVP
from .simvp import SimVP, checkpoint_filter_fn, column, from_openstl, register

__all__ = ["TAU", "checkpoint_filter_fn", "from_openstl"]


class TAU(SimVP):
    """SimVP with the translator "tau"; training by differential divergence (``plasm.tasks``) makes it TAU.

    Arguments as ``SimVP``; the translator is "tau" by default.
    """

    default_translator = "tau"


FAMILY = replace(
    SIMVP,
    module=__name__,
    **paper("tan2023tau"),
    url="https://arxiv.org/abs/2206.12126",
    # OpenSTL's (commit c74deb5), file by file of its configs; that for Human3.6M names no schedule, which is one cycle.
    recipes=recipes(
        "tau",
        lr=column("tau", "lr"),
        schedule={"human36m": "onecycle"},
        batch_size=column("tau", "batch_size"),
        phase_1=True,
        tiny={},
    ),
    task=DivergencePrediction,
    openstl={"tau": from_openstl},
)

default_cfgs = FAMILY.default_cfgs

tau_mmnist, tau_taxibj, tau_human36m, tau_caltech, tau_kth = register(FAMILY, TAU, "tau")
(tau_mmnist_tiny,) = register(FAMILY, TAU, "tau", encoder_dim=16, translator_dim=256, translator_depth=4, mlp_ratio=4.0)
