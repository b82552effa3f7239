import math

import pytest
import torch
from torch import Tensor, nn

from plasm.data.radar import normalize
from plasm.tasks import RainPrediction


class Known(nn.Module):
    in_frames, out_frames, in_chans, out_chans = 2, 3, 1, 1

    def __init__(self, forecast: Tensor) -> None:
        super().__init__()
        self.forecast = nn.Parameter(forecast)

    def forward(self, clip: Tensor) -> Tensor:
        return self.forecast


def clips(truth: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, 2, 1, *truth.shape[-2:]), truth], 1)


def test_csi_and_bias_are_those_of_counted_events() -> None:
    truth, forecast = torch.zeros(1, 3, 1, 100, 100), torch.zeros(1, 3, 1, 100, 100)
    truth[..., :40, :] = 1  # 4000 events
    forecast[..., 20:80, :] = 1  # 6000, of which 2000 are hits
    task = RainPrediction(Known(forecast), thresholds=(0.5,), width=0.001, margin=0).train()
    losses, _ = task(clips(truth), torch.zeros(1), 0, 0)
    assert losses["csi"].item() == pytest.approx(1 - 2020 / 8020, abs=1e-4)
    assert losses["bias"].item() == pytest.approx(0.1 * math.log(6020 / 4020) ** 2, abs=1e-4)
    assert losses["error"].item() == pytest.approx(2.0 * 0.6, abs=1e-4)


def test_cells_without_weight_do_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, forecast = (torch.rand(1, 3, 1, 32, 32, generator=generator) for _ in range(2))
    weight = torch.ones(1, 5, 1, 32, 32)
    weight[..., 16:] = 0
    other = forecast.clone()
    other[..., 16:] = 1
    losses = [
        RainPrediction(Known(each), margin=0).train()(clips(truth), torch.zeros(1), 0, 0, weight)[0]
        for each in (forecast, other)
    ]
    for name in losses[0]:
        torch.testing.assert_close(losses[0][name], losses[1][name])


def test_weights_of_other_channels_than_the_clips_are_an_error() -> None:
    """Which would be counted once where what they weigh is counted for each channel."""
    frames = torch.rand(1, 3, 2, 8, 8)
    with pytest.raises(ValueError, match=r"weights are \(1, 3, 1, 8, 8\) where the clips need \(1, 3, 2, 8, 8\)"):
        RainPrediction(Known(frames)).rain_losses(frames, frames, torch.ones(1, 3, 1, 8, 8))


def test_the_margin_does_not_count() -> None:
    truth = torch.rand(1, 3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    forecast = truth.clone()
    forecast[..., :4, :] = forecast[..., -4:, :] = forecast[..., :4] = forecast[..., -4:] = 0.7
    losses, _ = RainPrediction(Known(forecast), margin=4).train()(clips(truth), torch.zeros(1), 0, 0)
    assert losses["error"] == 0


def test_thresholds_are_rates_that_forecasters_take() -> None:
    for threshold, rate in zip(RainPrediction(Known(torch.zeros(1))).thresholds, (0.1, 0.5, 1, 2, 5), strict=True):
        pixel = normalize(torch.tensor(rate)).item()
        # As eight bits have it, 254 steps.
        assert pixel - 1 / 254 < threshold <= round(pixel * 254) / 254


def test_wrong_options_are_errors() -> None:
    for options in ({"width": 0}, {"thresholds": ()}, {"bias_weight": -1}, {"margin": -2}):
        with pytest.raises(ValueError, match=next(iter(options)).removesuffix("s").replace("_", "_")):
            RainPrediction(Known(torch.zeros(1)), **options)
    for options in ({"thresholds": (float("nan"),)}, {"thresholds": ("a",)}, {"thresholds": 0.5}, {"margin": 2.5}):
        with pytest.raises(ValueError, match=next(iter(options))):
            RainPrediction(Known(torch.zeros(1)), **options)


def test_a_forecast_of_another_shape_is_an_error() -> None:
    truth = torch.rand(1, 3, 1, 40, 40)
    with pytest.raises(ValueError, match="where the clips need"):
        RainPrediction(Known(truth[:, :1])).train()(clips(truth), torch.zeros(1), 0, 0)
