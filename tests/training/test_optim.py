"""Options of the optimizer, and rates of layers."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

from plasm.training import TrainConfig
from plasm.training.optim import create_optimizer, create_scheduler

SMALL: dict[str, Any] = {"encoder_dim": 4, "translator_dim": 16, "translator_depth": 2, "encoder_depth": 2}


def config(**given: Any) -> TrainConfig:
    return TrainConfig(model="", data="", data_dir="", out="", **given)


def test_options_of_the_optimizer_reach_it() -> None:
    net = nn.Linear(2, 2)
    optimizer: Any = create_optimizer(net, config(opt_args={"betas": [0.8, 0.9], "eps": 1e-3}))
    assert {(group["betas"], group["eps"]) for group in optimizer.param_groups} == {((0.8, 0.9), 1e-3)}
    assert create_optimizer(net, config()).param_groups[0]["betas"] == (0.9, 0.999)
    assert create_optimizer(net, config(optimizer="sgd", opt_args={"momentum": 0.5})).param_groups[0]["momentum"] == 0.5
    assert create_optimizer(net, config(opt_args={"foreach": True})).defaults["foreach"] is True
    with pytest.raises(ValueError, match=r"optimizer 'adam' with \{'momenta': 3\} cannot train here: .*momenta"):
        create_optimizer(net, config(opt_args={"momenta": 3}))
    with pytest.raises(ValueError, match=r"optimizer 'adam' with .* cannot train here: Invalid beta"):
        create_optimizer(net, config(opt_args={"betas": (2.0, 0.9)}))
    with pytest.raises(ValueError, match="nesterov of the optimizer 'sgd' is true or false, got 'no'"):
        create_optimizer(net, config(optimizer="sgd", opt_args={"momentum": 0.5, "nesterov": "no"}))
    with pytest.raises(ValueError, match="foreach of the optimizer 'adam' is true or false, got 'no'"):
        create_optimizer(net, config(opt_args={"foreach": "no"}))
    with pytest.raises(ValueError, match="opt_args has lr, which has an option of its own"):
        create_optimizer(net, config(opt_args={"lr": 3}))


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "wsd"])
def test_each_layer_has_a_rate_below_that_of_the_next(schedule: str) -> None:
    net: Any = timm.create_model("simvp_gsta_mmnist", **SMALL)
    told = config(lr=0.1, layer_decay=0.5, schedule=schedule, epochs=2, warmup_epochs=1)
    optimizer = create_optimizer(net, told)
    names = {parameter: name for name, parameter in net.named_parameters()}
    peak = {names[parameter]: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert peak.keys() == dict(net.named_parameters()).keys()
    assert peak["decoder.readout.weight"] == 0.1
    assert peak["translator.blocks.1.reduction.weight"] == 0.1
    assert peak["translator.blocks.0.reduction.weight"] == 0.05
    assert peak["encoder.blocks.0.conv.weight"] == 0.025
    # A schedule moves all of them alike.
    scheduler, ratios = create_scheduler(optimizer, told, 8), []
    for _ in range(7):
        optimizer.step()
        scheduler.step()
        rates = [group["lr"] for group in optimizer.param_groups]
        ratios.append([rate / max(rates) for rate in rates])
    for ratio in ratios:
        assert ratio == pytest.approx(ratios[0], abs=1e-6)
    assert min(ratios[0]) < 0.5


def test_a_decay_longer_than_the_run_takes_half_of_it() -> None:
    """As of a recipe's ten epochs, where one is asked for: the rate reaches its peak."""
    parameter = nn.Parameter(torch.zeros(1))
    scheduler = create_scheduler(
        torch.optim.SGD([parameter], lr=1.0), config(schedule="wsd", epochs=1, decay_epochs=2), 8
    )
    rates = []
    for _ in range(8):
        rates.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_layers_need_a_name_and_a_factor() -> None:
    with pytest.raises(ValueError, match="Linear has no group_matcher"):
        create_optimizer(nn.Linear(1, 1), config(layer_decay=0.5))
    for factor in (0.0, 1.5):
        with pytest.raises(ValueError, match="layer_decay is a factor above 0, up to 1"):
            config(layer_decay=factor)
