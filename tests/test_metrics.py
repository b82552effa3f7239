import math
from collections.abc import Callable

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


@pytest.mark.parametrize("what", ["prediction", "target"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda clip: (clip * 255).byte(), "holds uint8.*divide by 255"),
        (lambda clip: clip > 0.5, "holds bool"),
        (lambda clip: clip.index_fill(0, torch.tensor(3), math.nan), "clip 3 .*not finite"),
        (lambda clip: clip.index_fill(0, torch.tensor(3), math.inf), "clip 3 .*not finite"),
    ],
)
def test_values_that_make_no_metric_are_refused(what: str, change: Callable[..., torch.Tensor], message: str) -> None:
    clips = {"prediction": PREDICTION, "target": TARGET}
    metrics = VideoMetrics(ssim=False)
    with pytest.raises(ValueError, match=message):
        metrics.update(**clips | {what: change(clips[what])})
    metrics.update(**clips)
    # What was refused has left nothing.
    assert metrics.compute().num_clips == 5
    assert math.isfinite(metrics.compute().means["mse"])


def test_targets_of_bytes_as_floats_are_refused() -> None:
    with pytest.raises(ValueError, match=r"reaches 2\d\d.*divide by 255"):
        VideoMetrics().update(PREDICTION, TARGET * 255)


def test_predictions_too_large_to_be_summed_give_no_metric() -> None:
    metrics = VideoMetrics(ssim=False)
    metrics.update(torch.full_like(TARGET, 1e30), TARGET)
    with pytest.raises(ValueError, match="mse cannot be given"):
        metrics.compute()


def test_frames_smaller_than_ssims_window_have_the_other_metrics() -> None:
    metrics = VideoMetrics()
    metrics.update(PREDICTION[..., :5, :], TARGET[..., :5, :])
    result = metrics.compute()
    assert set(result.means) == set(result.per_frame) == {"mse", "mae", "psnr"}
    assert result.note == "no SSIM: frames of 5x18 are smaller than its window of 7x7 pixels"
    with pytest.raises(ValueError, match="cannot be averaged"):
        metrics.update(PREDICTION, TARGET)
    with pytest.raises(ValueError, match="no SSIM: frames of 5x18"):
        frame_ssim(PREDICTION[..., :5, :], TARGET[..., :5, :])
