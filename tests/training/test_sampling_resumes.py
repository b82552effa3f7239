"""A run of a model that draws what it is shown in training resumes to the bit."""

from pathlib import Path
from typing import Any

import pytest
from test_resume import HERE, arguments, result

from plasm.training import TrainConfig
from plasm.training.assembly import prepare

FRAMES: dict[str, Any] = {"in_frames": 3, "out_frames": 3, "sampling_stop": 8}


@pytest.mark.parametrize(
    ("model", "args"),
    [
        ("predrnnv2_mmnist", {**FRAMES, "hidden_dims": (4, 4), "patch_size": 16}),
        ("mau_mmnist", {**FRAMES, "hidden_dims": (4, 4), "reduction": 16}),
        ("mim_mmnist", {**FRAMES, "hidden_dims": (4, 4), "patch_size": 16}),
        ("phydnet_mmnist", {"in_frames": 3, "out_frames": 3, "forcing_steps": 8, "residual_dims": (8, 64)}),
    ],
)
def test_sampling_of_the_truth_resumes(model: str, args: dict[str, Any], tmp_path: Path) -> None:
    changes = {"model": model, "model_args": args, "epochs": 2, "clips_per_epoch": 8}
    prepare(TrainConfig(**arguments(tmp_path / "whole", **changes)), HERE, resume=False).fit()
    halved = TrainConfig(**arguments(tmp_path / "halved", **changes))
    prepare(halved, HERE, resume=False).fit(epochs=1)
    prepare(halved, HERE, resume=True).fit()
    assert result(tmp_path / "halved") == result(tmp_path / "whole")
