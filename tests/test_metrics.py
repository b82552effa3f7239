import math

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter

from plasm.metrics import VideoMetrics, frame_psnr, frame_ssim

PREDICTION = torch.rand(5, 3, 2, 16, 18, generator=torch.Generator().manual_seed(1)) * 1.4 - 0.2
TARGET = torch.rand(5, 3, 2, 16, 18, generator=torch.Generator().manual_seed(2))


def ssim_reference(x: np.ndarray, y: np.ndarray, data_range: float) -> float:
    """Wang et al. (2004) with a uniform 7x7 window and unbiased covariances, away from the border."""
    c1, c2, n = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2, 49

    def mean(z: np.ndarray) -> np.ndarray:
        return uniform_filter(z, 7)[3:-3, 3:-3]

    mx, my = mean(x), mean(y)
    vx, vy = ((mean(z * z) - m * m) * n / (n - 1) for z, m in ((x, mx), (y, my)))
    cov = (mean(x * y) - mx * my) * n / (n - 1)
    return float(((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


def test_metrics_are_their_definitions() -> None:
    metrics = VideoMetrics()
    metrics.update(PREDICTION, TARGET)
    result = metrics.compute()
    x, y = PREDICTION.double().numpy(), TARGET.double().numpy()
    clamped = x.clip(0, 1)
    frames = [(b, t) for b in range(5) for t in range(3)]
    expected = {
        "mse": [((x[f] - y[f]) ** 2).sum() for f in frames],
        "mae": [np.abs(x[f] - y[f]).sum() for f in frames],
        "psnr": [10 * math.log10(1 / ((clamped[f] - y[f]) ** 2).mean()) for f in frames],
        "ssim": [np.mean([ssim_reference(clamped[f][c], y[f][c], 1) for c in range(2)]) for f in frames],
        "ssim_published": [np.mean([ssim_reference(clamped[f][c], y[f][c], 2) for c in range(2)]) for f in frames],
    }
    assert set(result.means) == set(expected)
    for name, values in expected.items():
        assert result.means[name] == pytest.approx(np.mean(values), rel=1e-4), name
        assert result.per_frame[name] == pytest.approx(np.reshape(values, (5, 3)).mean(0), rel=1e-4), name
    assert result.num_clips == 5


def test_batches_of_any_size_give_the_same() -> None:
    whole, parts = VideoMetrics(), VideoMetrics()
    whole.update(PREDICTION, TARGET)
    for part in (slice(0, 1), slice(1, 5)):
        parts.update(PREDICTION[part], TARGET[part])
    for name, value in whole.compute().means.items():
        assert parts.compute().means[name] == pytest.approx(value, rel=1e-6), name


def test_memory_does_not_grow_with_the_clips() -> None:
    metrics = VideoMetrics(ssim=False)
    for _ in range(3):
        metrics.update(PREDICTION, TARGET)
    assert all(total.shape == (3,) for total in metrics._sums.values())


def test_a_perfect_frame_scores_the_cap() -> None:
    assert frame_psnr(TARGET, TARGET).eq(100).all()
    assert frame_ssim(TARGET, TARGET).numpy() == pytest.approx(1)


def test_psnr_and_ssim_clamp_and_mse_does_not() -> None:
    metrics = VideoMetrics()
    metrics.update(torch.full((1, 1, 1, 8, 8), 2.0), torch.ones(1, 1, 1, 8, 8))
    means = metrics.compute().means
    assert means["mse"] == means["mae"] == 64
    assert means["psnr"] == 100
    assert means["ssim"] == pytest.approx(1)


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"\(5, 3, 2, 16, 18\) and \(4, 3, 2, 16, 18\)"):
        VideoMetrics().update(PREDICTION, TARGET[:4])
    with pytest.raises(ValueError, match="no clip"):
        VideoMetrics().compute()
