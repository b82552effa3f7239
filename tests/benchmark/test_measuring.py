import functools
from typing import Any

import pytest
import torch
from torch import nn

from plasm import benchmark
from plasm.benchmark import measuring


@pytest.mark.slow
def test_runtimes_and_threads_are_measured_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    # One export serves both numbers of threads.
    monkeypatch.setattr(measuring, "through_onnx", functools.cache(measuring.through_onnx))
    args = {"encoder_dim": 4, "translator_dim": 16, "translator_depth": 2, "encoder_depth": 2}
    before = torch.get_num_threads()
    rows = benchmark.measure(
        ["tau_taxibj"], torch.device("cpu"), 1, runtime=("eager", "onnx"), rounds=1, model_args=args, threads=(1, 2)
    )
    assert torch.get_num_threads() == before
    assert [(row.threads, row.runtime) for row in rows] == [(1, "eager"), (1, "onnx"), (2, "eager"), (2, "onnx")]
    assert [row.difference for row in rows[::2]] == [0, 0]
    assert all(0 < row.difference < 1e-3 for row in rows[1::2])
    with pytest.raises(ValueError, match="onnx: measured on the CPU and in float32 only"):
        benchmark.measure(["tau_taxibj"], torch.device("cpu"), dtype=torch.bfloat16, runtime="onnx")


def test_the_ratio_to_the_peak_counts_what_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product takes 1 s in the first round and 3 s in the others, a forecast 2 s, a training step 4 s."""

    def in_turn(steps: Any, rounds: int, device: torch.device) -> list[list[float]]:
        assert len(steps) == 3
        return [[1.0, 3.0, 3.0], [2.0] * 3, [4.0] * 3]

    args = {"encoder_dim": 4, "translator_dim": 16, "translator_depth": 2, "encoder_depth": 2}
    monkeypatch.setattr(measuring, "in_turn", in_turn)
    monkeypatch.setattr(measuring, "peak_memory", lambda step, device: 0)
    forward, training = benchmark.measure(["tau_taxibj"], torch.device("cpu"), 2, rounds=3, train=True, model_args=args)
    # A product of 1,024 x 1,024 matrices, 20 times over, is twice as many operations as MACs.
    peak = 2 * 1024**3 * 20 / 3
    assert (forward.clips_per_second, training.clips_per_second) == (1.0, 0.5)
    assert forward.peak_ratio == pytest.approx(1.0 * 2 * forward.macs / peak)
    # Backward counts twice as much as forward.
    assert training.peak_ratio == pytest.approx(0.5 * 3 * 2 * forward.macs / peak)


def test_another_runtime_is_a_function_of_model_and_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def runtime(model: nn.Module, clip: torch.Tensor) -> nn.Module:
        seen.append(tuple(clip.shape))
        return model

    monkeypatch.setitem(benchmark.RUNTIMES, "other", runtime)
    args = {"encoder_dim": 4, "translator_dim": 16, "translator_depth": 2}
    (row,) = benchmark.measure(["tau_taxibj"], torch.device("cpu"), 1, runtime="other", rounds=1, model_args=args)
    assert seen == [(1, 4, 2, 32, 32)]
    assert row.runtime == "other"


def test_every_compiled_model_runs_its_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models share code, of which torch by itself keeps a few graphs, and says so in its log alone."""
    graphs: list[Any] = []

    def runtime(model: nn.Module, clip: torch.Tensor) -> Any:
        def backend(graph: Any, _: Any) -> Any:
            def run(*given: Any) -> Any:
                graphs.append(graph)
                return graph.forward(*given)

            return run

        return torch.compile(model, backend=backend, dynamic=False)

    monkeypatch.setitem(benchmark.RUNTIMES, "compile", runtime)
    args = {"encoder_dim": 4, "translator_dim": 16, "translator_depth": 2, "encoder_depth": 2}
    torch._dynamo.reset()
    with torch._dynamo.config.patch(cache_size_limit=1):
        for batch_size in (1, 2):
            graphs.clear()
            benchmark.measure(
                ["tau_taxibj"], torch.device("cpu"), batch_size, runtime="compile", rounds=1, model_args=args
            )
            assert graphs, batch_size


def test_training_that_nothing_compiles_has_no_compiled_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(benchmark.RUNTIMES, "compile", lambda model, clip: torch.compile(model, backend="eager"))
    rows = benchmark.measure(
        ["convlstm_taxibj"], torch.device("cpu"), 1, train=True, runtime=("eager", "compile"), rounds=1,
        model_args={"hidden_dims": [4]},
    )  # fmt: skip
    assert [(row.runtime, row.mode) for row in rows] == [
        ("eager", "inference"), ("eager", "training"), ("compile", "inference"),
    ]  # fmt: skip
