"""benchmarks/scores.py: what other scores in PLA do to the error."""

import importlib
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import timm
import torch

ROOT = Path(__file__).parents[1]
SMALL: dict[str, Any] = {"encoder_dim": 4, "translator_dim": 8, "translator_depth": 2}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("scores")
    sys.modules.pop("scores")


def model(**kwargs: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model("plasm_mmnist_tiny", **SMALL, **kwargs).eval()


def test_the_errors_are_those_of_the_replaced_scores(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "BATCH", 2)
    net, clips = model(), torch.rand(3, 20, 1, 16, 16)
    clip, target = clips[:, :10], clips[:, 10:]
    own = script.scores(net, clip)
    assert [block.shape for block in own] == [(3, 2)] * 2

    def mse() -> float:
        with torch.no_grad():
            return float((net(clip) - target).square().sum((2, 3, 4)).mean())

    expected = mse()
    assert script.error(net, clip, target, None) == pytest.approx(expected, rel=1e-5)
    # The model's own scores in their place change nothing, ones do, and neither stays.
    assert script.error(net, clip, target, own) == pytest.approx(expected, rel=1e-5)
    ones = script.error(net, clip, target, [script.VARIANTS["all 1"](block) for block in own])
    assert abs(ones / expected - 1) > 1e-4
    assert mse() == expected
    with monkeypatch.context() as patch:
        for layer in script.pla_layers(net):
            patch.setattr(layer, "scores", lambda low, high: torch.ones(len(low), 2))
        assert mse() == pytest.approx(ones, rel=1e-5)


def test_another_clips_scores_are_another_clips(script: Any) -> None:
    block = torch.arange(6.0).view(3, 2)
    other = script.VARIANTS["another clip's"](block)
    assert not (other == block).any()
    assert sorted(other.flatten().tolist()) == sorted(block.flatten().tolist())
    assert script.VARIANTS["mean over clips"](block).tolist() == [[2.0, 3.0]] * 3


@pytest.mark.parametrize("attention", ["none", "spatial"])
def test_other_forms_of_attention_are_refused(script: Any, attention: str) -> None:
    with pytest.raises(click.UsageError, match="only the global form of attention has one score a head"):
        script.pla_layers(model(attention=attention))
