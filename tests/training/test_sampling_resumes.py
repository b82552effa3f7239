"""A run of a model that draws what it is shown in training resumes exactly."""

from pathlib import Path
from typing import Any

import pytest
from test_resume import HERE, arguments, result

from plasm.config import read_config
from plasm.training import TrainConfig
from plasm.training.assembly import prepare

FRAMES: dict[str, Any] = {"in_frames": 3, "out_frames": 3}
SAMPLING = {"sampling_stop": 8}


@pytest.mark.parametrize(
    ("model", "args", "options", "losses"),
    [
        ("predrnnv2_mmnist", {**FRAMES, "hidden_dims": (4, 4), "patch_size": 16}, SAMPLING, {"mse", "decoupling"}),
        ("mau_mmnist", {**FRAMES, "hidden_dims": (4, 4), "reduction": 16}, SAMPLING, set()),
        ("mim_mmnist", {**FRAMES, "hidden_dims": (4, 4), "patch_size": 16}, SAMPLING, set()),
        ("phydnet_mmnist", {**FRAMES, "residual_dims": (8, 64)}, {"forcing_steps": 8}, {"mse", "moments"}),
    ],
)
def test_sampling_of_the_truth_resumes(
    model: str, args: dict[str, Any], options: dict[str, Any], losses: set[str], tmp_path: Path
) -> None:
    changes = {"model": model, "model_args": args, "task_args": options, "epochs": 2, "clips_per_epoch": 8}
    prepare(TrainConfig(**arguments(tmp_path / "whole", **changes)), HERE, resume=False).fit()
    halved = TrainConfig(**arguments(tmp_path / "halved", **changes))
    prepare(halved, HERE, resume=False).fit(epochs=1)
    prepare(halved, HERE, resume=True).fit()
    assert result(tmp_path / "halved") == result(tmp_path / "whole")
    for row in result(tmp_path / "whole")["log"]:
        assert {name.removeprefix("loss_") for name in row if name.startswith("loss_")} == losses
        assert not losses or sum(row[f"loss_{name}"] for name in losses) == pytest.approx(row["loss"])
    assert options.items() <= read_config(TrainConfig, tmp_path / "whole" / "config.toml")["task_args"].items()
