"""A class made without arguments is what its name says: the model of Moving MNIST that bears the name."""

import pytest
import timm
from torch import nn

from plasm import models
from plasm.models import VideoModel

CLASSES = [
    each
    for each in (getattr(models, name) for name in models.__all__)
    if isinstance(each, type) and issubclass(each, VideoModel) and each is not VideoModel
]
# SimVP's own default is its second version.
NAMES = {"SimVP": "simvp_gsta_mmnist", "PLASMRadar": "plasm_radar"}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_class_with_its_own_defaults_is_what_its_name_says(cls: type[nn.Module]) -> None:
    named = timm.create_model(NAMES.get(cls.__name__, f"{cls.__name__.lower()}_mmnist"), device="meta")
    own = cls(device="meta")
    assert type(named) is cls
    assert [(key, tensor.shape) for key, tensor in own.state_dict().items()] == [
        (key, tensor.shape) for key, tensor in named.state_dict().items()
    ]
    assert repr(own) == repr(named)
