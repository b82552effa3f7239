"""Optimizer and learning rate of a run, from its configuration."""

import difflib
import inspect
import json
import math
from collections.abc import Callable
from typing import Any

import torch
from timm.optim import (
    create_optimizer_v2,
    get_optimizer_class,
    list_optimizers,
    param_groups_layer_decay,
    param_groups_weight_decay,
)
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from plasm.models import ModelInterface
from plasm.runs import RunConfig

from .encoding import encode


def create_optimizer(model: nn.Module, config: RunConfig) -> torch.optim.Optimizer:
    """The optimizer of a name of timm's, over the parameters that require a gradient.

    Raises:
        ValueError: If timm has none of that name, it has no such option or cannot take a step here whose state can be
            saved, or the model does not say what its layers are.
    """
    name = config.optimizer
    if name not in list_optimizers():
        near = difflib.get_close_matches(name, list_optimizers(), n=3, cutoff=0)
        raise ValueError(
            f"no optimizer is called {name!r}; do you mean {', '.join(near)}? timm.optim.list_optimizers() names all"
        )
    # The paper's betas (timm would take them for Adam, too, but lets each optimizer have its own) and torch's one-pass
    # step, where it has one and no other is asked for.
    one_pass = name in ("adam", "adamw") and not config.opt_args.get("foreach")
    options: dict[str, Any] = {"fused": True} if one_pass else {}
    # Files have lists for tuples.
    options |= {key: tuple(value) if isinstance(value, list) else value for key, value in config.opt_args.items()}
    if taken := {"lr", "weight_decay", "params"}.intersection(config.opt_args):
        raise ValueError(f"opt_args has {sorted(taken)[0]}, which has an option of its own")
    groups = [group for group in _groups(model, config) if group["params"]]

    def create(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return create_optimizer_v2(groups, name, lr=config.lr, **options)

    described = f"{name!r} with {config.opt_args}" if config.opt_args else repr(name)
    _try(create, described, groups[0]["params"][0].device if groups else torch.device("cpu"))
    # Not before: of some that cannot train here, timm does not give the class.
    for key, parameter in inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters.items():
        # Not every option is annotated; some have None for "as is best here".
        is_bool = isinstance(parameter.default, bool) or "bool" in str(parameter.annotation)
        if is_bool and isinstance(options.get(key), str):
            # "no" would count as True.
            raise ValueError(f"{key} of the optimizer {name!r} is true or false, got {options[key]!r}")
    return create(groups)


def _groups(model: nn.Module, config: RunConfig) -> list[dict[str, Any]]:
    """Parameters with weight decay and without, and with ``layer_decay`` those of each layer with a rate of its own."""
    if config.layer_decay is None:
        return list(param_groups_weight_decay(model, config.weight_decay))
    if ModelInterface.of(model).group_matcher is None:
        raise ValueError(f"{type(model).__name__} has no group_matcher, which names the layers of layer_decay")
    groups = param_groups_layer_decay(model, config.weight_decay, layer_decay=config.layer_decay)
    # timm's schedulers scale the rate of a group; torch's begin with the group's own.
    return [{**group, "lr": config.lr * group.pop("lr_scale")} for group in groups]


def _try(create: Callable[[list[dict[str, Any]]], torch.optim.Optimizer], name: str, device: torch.device) -> None:
    """Take two steps with an optimizer of a few numbers, and write down what it keeps.

    Raises:
        ValueError: If it cannot, in whatever way: better now than at the end of the first epoch.
    """
    drawn = torch.Generator().manual_seed(0)
    shapes = (4, 2, 3, 3), (6, 4), (4,)
    parameters = [nn.Parameter(torch.randn(shape, generator=drawn).to(device)) for shape in shapes]
    try:
        optimizer = create([{"params": parameters[:2], "weight_decay": 0.01}, {"params": parameters[2:]}])
        if getattr(optimizer, "is_second_order", False):
            raise ValueError("it needs second derivatives, which the trainer does not take")
        with torch.compiler.set_stance("force_eager"), torch.random.fork_rng(devices=[]):
            for _ in range(2):
                for parameter in parameters:
                    parameter.grad = torch.randn(parameter.shape, generator=drawn).to(device)
                optimizer.step()
        state = [list(optimizer.state[parameter].values()) for parameter in parameters]
        others = {key: value for key, value in optimizer.state_dict().items() if key not in ("state", "param_groups")}
        groups = [{**group, "params": None} for group in optimizer.param_groups]
        json.dumps(encode([state, groups, others], name, {}))
    except Exception as error:  # Whatever it raises: those that need another package raise all kinds.
        reason = str(error) or f"{type(error).__name__}; is the package that it is from installed?"
        raise ValueError(f"the optimizer {name} cannot train here: {reason}") from error


def create_scheduler(optimizer: torch.optim.Optimizer, config: RunConfig, num_steps: int) -> LRScheduler:
    """Learning rate of each step: torch's one-cycle (Smith and Topin), half a cosine down to 0, or one of the others.

    Before a cosine the rate may rise linearly. Exponential is STAM's: constant for a quarter of the run, then times .9
    75 times over, here a little at each step.

    Warm-up, stable, decay (Hu et al., arXiv 2404.06395): until it decays, a step's rate does not depend on how long the
    run is to be.
    """
    # A recipe's warm-up is of its own number of epochs, of which a short trial has fewer.
    rising = min(config.warmup_epochs * (num_steps // config.epochs), num_steps // 2)
    if config.schedule == "onecycle":
        # torch cannot rise within one step, nor fall within none.
        ratio = max(rising, 2) / num_steps if rising and num_steps > 2 else 0.3
        # torch would cycle Adam's beta1, too, by default; the paper keeps .9.
        return OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=num_steps,
            pct_start=ratio,
            cycle_momentum=False,
        )
    if config.schedule == "cosine":
        if not rising:
            return CosineAnnealingLR(optimizer, T_max=num_steps)
        falling = num_steps - rising
        return LambdaLR(
            optimizer,
            lambda step: min(
                (step + 1) / (rising + 1), 0.5 + 0.5 * math.cos(math.pi * max(0, step - rising) / falling)
            ),
        )
    if config.schedule == "exponential":
        held = num_steps // 4
        return LambdaLR(optimizer, lambda step: min(1.0, 0.9 ** (75 * (step - held) / (num_steps - held))))
    if config.schedule == "wsd":
        warmup, decay = config.warmup_steps, num_steps // config.epochs * config.decay_epochs
        if decay > num_steps:
            # A recipe's decay is of its own number of epochs, too.
            decay = num_steps // 2
        # The decay's first step is the last at the peak, so that a run that gets one joins on.
        return LambdaLR(
            optimizer,
            lambda step: min(1.0, (step + 1) / (warmup + 1), (num_steps - step) / decay if decay else 1.0),
        )
    return LambdaLR(optimizer, lambda step: 1.0)
