import pytest
import torch
from torch import Tensor, nn

from plasm.evaluation import TimedForecast, forecast, forecasts


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
    monkeypatch.setattr(forecasts.time, "perf_counter", lambda: next(clock))
    timed = TimedForecast(lambda clip, frames: clip[:, :1].expand(-1, frames, -1, -1, -1), torch.device("cpu"))
    for count in (2, 2, 1):
        timed(torch.zeros(count, 3, 1, 2, 2), 10)
    assert timed.frames_per_second == (20 + 10) / 2
    # One batch is all there is.
    clock = iter((0.0, 4.0))
    timed = TimedForecast(lambda clip, frames: clip[:, :frames], torch.device("cpu"))
    timed(torch.zeros(4, 3, 1, 2, 2), 2)
    assert timed.frames_per_second == 8 / 4
