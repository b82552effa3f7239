"""Recipes of the five benchmarks, against the settings of OpenSTL.

They are in openstl_recipes.csv, where an empty field is a default. ``config`` is the file of OpenSTL's
``configs`` (commit c74deb5).
"""

import csv
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import plasm  # noqa: F401
from plasm.models import family_of, openstl, recipe
from plasm.runs import PretrainConfig, TrainConfig, create_config
from plasm.tasks import DivergencePrediction, Prediction, ScheduledSampling, ScheduledSamplingL1, TeacherForcing

with Path(__file__).with_name("openstl_recipes.csv").open(encoding="utf-8", newline="") as _file:
    CONFIGS = list(csv.DictReader(_file))
R0 = {"mmnist": 0.96, "taxibj": 0.97, "human36m": 0.95, "caltech": 0.95, "kth": 0.90}


def config(name: str, kind: type[Any] = TrainConfig, **given: Any) -> Any:
    return create_config(kind, {"model": name, "data": "mmnist", "data_dir": ".", "out": "out", **given})


def test_recipes_are_openstls() -> None:
    assert len(CONFIGS) == 105
    for row in CONFIGS:
        found, benchmark = config(row["model"]), row["model"].rpartition("_")[2]
        assert found.lr == float(row["lr"] or 1e-3), row
        assert found.schedule == (row["sched"] or "onecycle"), row
        assert found.warmup_epochs == int(row["warmup_epoch"] or 0), row
        assert found.batch_size == int(row["batch_size"]), row
        assert (found.optimizer, found.weight_decay, found.clip_grad) == ("adam", 0, 0), row
        assert found.epochs == {"mmnist": 200, "taxibj": 50, "human36m": 50}.get(benchmark, 100), row


def test_arguments_of_training_are_openstls(monkeypatch: pytest.MonkeyPatch) -> None:
    for draw in ("normal_", "uniform_"):
        # Slow on the meta device, where there is nothing to draw.
        monkeypatch.setattr(torch.Tensor, draw, lambda tensor, *_, **__: tensor)
    for row in CONFIGS:
        if row["model"].startswith(("simvp", "tau")):
            # A shallow one is made in no time.
            args = timm.create_model(row["model"], translator_depth=2, device="meta")._model_args
            assert args["drop_path_rate"] == float(row["drop_path"] or 0), row
        else:
            assert not row["drop_path"]
        options = config(row["model"]).task_args
        assert options.get("decouple_weight") == (float(row["decouple_beta"]) if row["decouple_beta"] else None), row
        assert options.get("reverse_sampling", False) == bool(row["decouple_beta"]), row
        if row["decouple_beta"]:
            assert options["sampling_stop"] / 10 == float(row["r_exp_alpha"]), row
        if row["model"].startswith("phydnet"):
            assert options == {"forcing_steps": 208_334}
        elif family_of(row["model"]).task in (ScheduledSampling, ScheduledSamplingL1):
            assert options["sampling_stop"] == 50_000, row
        else:
            assert not options


def test_phase_1_is_table_1s() -> None:
    pretrained = [f"{name}_{key}" for name in ("simvp", "simvp_gsta", "tau", "mau", "phydnet", "plasm") for key in R0]
    for name in pretrained:
        found, benchmark = config(name, PretrainConfig), name.rpartition("_")[2]
        assert found.mask_ratio == R0[benchmark], name
        assert found.clips_per_epoch == (19_627 if benchmark == "taxibj" else 10_000), name
        assert (found.lr, found.epochs, found.batch_size) == (0.01, 50, 16), name


def test_those_that_openstl_does_not_have() -> None:
    found = [config(f"predformer_{name}") for name in ("mmnist", "taxibj", "human36m")]
    assert [each.epochs for each in found] == [2000, 200, 50]
    assert [each.schedule for each in found] == ["onecycle", "onecycle", "cosine"]
    assert [each.batch_size for each in found] == [16, 16, 8]
    assert {(each.optimizer, each.lr, each.weight_decay, each.warmup_epochs) for each in found} == {
        ("adamw", 1e-3, 0.01, 0)
    }
    stam = config("stam_mmnist")
    assert (stam.lr, stam.batch_size, stam.schedule, stam.clip_grad) == (1e-3, 12, "exponential", 0)
    for name in R0:
        each = config(f"stam_{name}")
        assert each.epochs * (each.clips_per_epoch // each.batch_size) == pytest.approx(200_000, rel=0.01)
    # The paper's own model keeps its paper's recipe.
    assert recipe("plasm_mmnist", "train") == {"epochs": 2000, "lr": 0.01}
    assert config("plasm_mmnist").clip_grad == 1


def test_a_family_names_its_task_and_a_recipe_its_options() -> None:
    tasks = {
        "plasm": Prediction, "simvp": Prediction, "predformer": Prediction, "tau": DivergencePrediction,
        "e3dlstm": ScheduledSamplingL1, "phydnet": TeacherForcing, "convlstm": ScheduledSampling,
        "predrnn": ScheduledSampling, "predrnnpp": ScheduledSampling, "predrnnv2": ScheduledSampling,
        "mim": ScheduledSampling, "mau": ScheduledSampling, "stam": ScheduledSampling, "crevnet": ScheduledSampling,
    }  # fmt: skip
    for name, task in tasks.items():
        family: Any = family_of(f"{name}_mmnist")
        assert family.task is task, name
    # The league's: of 6,000 steps, the share that 50,000 have of OpenSTL's.
    assert config("predrnn_mmnist_tiny").task_args == {"sampling_stop": 2400}
    assert config("phydnet_mmnist_tiny").task_args == {"forcing_steps": 2400}
    # What is given overrides it, entry by entry.
    found = config("predrnnv2_kth", task_args={"sampling_stop": 10}).task_args
    assert found == {"sampling_stop": 10, "reverse_sampling": True, "decouple_weight": 0.01}


def test_a_configuration_of_openstl_makes_a_model_and_no_training() -> None:
    told = {"method": "PredRNNv2", "in_shape": [2, 1, 16, 16], "num_hidden": "8,8", "patch_size": 2}
    model: Any = openstl.create({**told, "r_exp_alpha": 2500, "r_sampling_step_2": 40_000, "decouple_beta": 0.05})
    assert not {"sampling_stop", "sampling_alpha", "decouple_weight"}.intersection(model._model_args)
