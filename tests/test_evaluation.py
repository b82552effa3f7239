from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from plasm import evaluation
from plasm.data import create_dataset
from plasm.distributed import World
from plasm.evaluation import TRIVIAL_FORECASTS, TimedForecast, evaluate, forecast
from plasm.metrics import VideoMetrics


def test_every_clip_counts_once_whatever_the_batches(sample_root: Path) -> None:
    dataset = create_dataset("mmnist", sample_root, "test", num_clips=7)
    whole = VideoMetrics()
    clips = torch.stack([dataset[i] for i in range(7)])
    whole.update(clips[:, 9:10].expand(-1, 10, -1, -1, -1), clips[:, 10:])
    for batch_size in (1, 3, 7, 50):
        table = evaluate(TRIVIAL_FORECASTS, dataset, 10, 10, batch_size=batch_size)
        assert table["last frame"].num_clips == 7
        for name, value in whole.compute().means.items():
            assert abs(table["last frame"].means[name] - value) < 1e-4 * abs(value), name


def test_the_first_clips_alone(sample_root: Path) -> None:
    dataset = create_dataset("mmnist", sample_root, "test", num_clips=7)
    table = evaluate(TRIVIAL_FORECASTS, dataset, 10, 10, num_clips=2, batch_size=5, ssim=False)
    expected = torch.stack([dataset[i][10:] for i in range(2)]).square().sum((2, 3, 4)).mean()
    assert abs(table["black"].means["mse"] - expected.item()) < 1e-3
    assert set(table["black"].means) == {"mse", "mae", "psnr"}


def test_trivial_forecasts_score_what_they_do_on_moving_mnist(mnist_root: Path) -> None:
    dataset = create_dataset("mmnist", mnist_root, "test")
    table = evaluate(TRIVIAL_FORECASTS, dataset, 10, 10, num_clips=500, ssim=False)
    assert 165 < table["black"].means["mse"] < 185
    assert 270 < table["last frame"].means["mse"] < 305


def test_fewer_clips_than_processes_is_an_error(sample_root: Path) -> None:
    clips = create_dataset("mmnist", sample_root, "test", num_clips=2)
    with pytest.raises(ValueError, match="2 clips are too few for 3 processes"):
        evaluate(TRIVIAL_FORECASTS, clips, 10, 10, world=World(0, 3, torch.device("cpu")))


def test_a_forecast_of_a_model_without_predict_is_cut_and_never_made_up() -> None:
    class Counts(nn.Module):
        def forward(self, clip: Tensor) -> Tensor:
            return torch.arange(3.0).view(1, 3, 1, 1, 1)

    cut = forecast(Counts())
    clip = torch.zeros(1, 2, 1, 1, 1)
    assert cut(clip, 2).flatten().tolist() == [0, 1]
    with pytest.raises(ValueError, match="Counts gives 3 frames and has no predict"):
        cut(clip, 4)


def test_speed_is_that_of_all_batches_but_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three batches of 2, 2 and 1 clips, which take 100, 1 and 1 seconds."""
    clock = iter((0.0, 100.0, 100.0, 101.0, 200.0, 201.0))
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: next(clock))
    timed = TimedForecast(lambda clip, frames: clip[:, :1].expand(-1, frames, -1, -1, -1), torch.device("cpu"))
    for count in (2, 2, 1):
        timed(torch.zeros(count, 3, 1, 2, 2), 10)
    assert timed.frames_per_second == (20 + 10) / 2
    # One batch is all there is.
    clock = iter((0.0, 4.0))
    timed = TimedForecast(lambda clip, frames: clip[:, :frames], torch.device("cpu"))
    timed(torch.zeros(4, 3, 1, 2, 2), 2)
    assert timed.frames_per_second == 8 / 4
