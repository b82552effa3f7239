"""What a checkpoint holds, for every optimizer."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.optim import list_optimizers
from torch import Tensor, nn

from plasm.tasks import Task
from plasm.training import TrainConfig, checkpoints
from plasm.training.encoding import decode, encode
from plasm.training.state import TrainState

# Of packages that are not installed, or with second derivatives.
REFUSED = {name for name in list_optimizers() if name.startswith(("bnb", "fused"))} | {"adahessian"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4)
        # Both of them lie alike in either format, with other strides.
        self.point, self.depthwise = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 4, 3, groups=4)
        self.linear = nn.Linear(6, 4)
        self.never = nn.Parameter(torch.zeros(2, 2))


def state(optimizer: str, **changes: Any) -> TrainState:
    torch.manual_seed(0)
    net = Net().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    config = TrainConfig(
        model="", data="", data_dir="", out="", optimizer=optimizer, lr=0.01, weight_decay=0.01, epochs=2, **changes
    )
    return TrainState(Task(net), config, 4, {"train": {}, "val": {}})


def step(state: TrainState) -> None:
    torch.manual_seed(state.step)
    for name, parameter in state.task.model.named_parameters():
        if name != "never":
            parameter.grad = torch.randn_like(parameter)
    state.take_step()
    state.step += 1


@pytest.mark.parametrize("name", [name for name in list_optimizers() if name not in REFUSED])
def test_every_optimizer_resumes_to_the_bit(name: str, tmp_path: Path) -> None:
    going = state(name)
    for _ in range(3):
        step(going)
    going.save(tmp_path)
    resumed = state(name)
    resumed.restore(tmp_path)
    assert resumed.step == 3
    for _ in range(2):
        step(going)
        step(resumed)
    one, other = going.task.model.state_dict(), resumed.task.model.state_dict()
    assert not torch.equal(one["linear.weight"], state(name).task.model.state_dict()["linear.weight"])
    for key in one:
        assert torch.equal(one[key], other[key]), key
    for p, q in zip(going.parameters, resumed.parameters, strict=True):
        mine, its = going.optimizer.state.get(p, {}), resumed.optimizer.state.get(q, {})
        assert mine.keys() == its.keys()
        for key, value in mine.items():
            if torch.is_tensor(value):
                assert value.dtype is its[key].dtype, key
                assert value.stride() == its[key].stride(), key


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_an_optimizer_that_cannot_train_here_is_refused_by_name(name: str) -> None:
    try:
        made = state(name)
    except ValueError as error:
        assert f"the optimizer {name!r} cannot train here: " in str(error)  # noqa: PT017
    else:
        step(made)


def test_what_no_checkpoint_can_hold_is_known_at_once() -> None:
    with pytest.raises(TypeError, match="momentum is a object, which no checkpoint can hold"):
        encode(object(), "momentum", {})


@pytest.mark.parametrize(
    "value",
    [
        [1, 2.5, None, True, "text", (3, [4, (torch.float16,)])],
        {"a": {1: (2, 3)}, 5: []},
        (3, (1, 2, 3), None),
        float("inf"),
    ],
)
def test_values_come_back_as_they_were(value: Any) -> None:
    tensors: dict[str, Tensor] = {}
    assert decode(json.loads(json.dumps(encode(value, "v", tensors))), tensors) == value
    assert not tensors


def test_tensors_are_kept_apart_by_name() -> None:
    tensors: dict[str, Tensor] = {}
    encoded = encode([torch.ones(2), (torch.zeros(1),)], "v", tensors)
    assert sorted(tensors) == ["v.0", "v.1.0"]
    assert decode(encoded, tensors)[1][0] is tensors["v.1.0"]


@pytest.mark.parametrize("values", [{}, {"epoch": "x"}, {"param_groups": None}, {"optimizer": [1]}, {"data": {}}])
def test_a_checkpoint_of_another_make_is_no_traceback(values: dict[str, Any], tmp_path: Path) -> None:
    going = state("adamw")
    step(going)
    going.save(tmp_path)
    found = checkpoints.load_newest(tmp_path)
    assert found is not None
    without = {name: value for name, value in found.values.items() if name != "scheduler"}
    checkpoints.save(found.tensors, {**(found.values if values else without), **values}, tmp_path, 1)
    with pytest.raises(ValueError, match=r"do not say what this plasm needs|other names or shapes") as error:
        state("adamw").restore(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_a_pipe_in_a_checkpoint_is_not_waited_for(name: str, tmp_path: Path) -> None:
    going = state("adamw")
    step(going)
    going.save(tmp_path)
    (place,) = tmp_path.glob("*/" + name)
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(OSError, match=r"every checkpoint in .* is damaged"):
        state("adamw").restore(tmp_path)
