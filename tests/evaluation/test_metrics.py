import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from scipy.ndimage import uniform_filter

from plasm.evaluation import (
    VideoMetrics,
    frame_lpips,
    frame_mae,
    frame_mse,
    frame_psnr,
    frame_ssim,
    load_lpips,
    published_scores,
)

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


@pytest.mark.parametrize(
    "score",
    [
        frame_mse,
        frame_mae,
        frame_psnr,
        frame_ssim,
        published_scores,
        lambda x, y: frame_lpips(x, y, torch.nn.Identity()),
    ],
)
def test_no_score_is_of_clips_of_two_shapes(score: Callable[..., object]) -> None:
    """Of which torch would measure one frame, channel or clip against each of the others."""
    for fewer in (PREDICTION[:1], PREDICTION[:, :1], PREDICTION[:, :, :1]):
        for pair in ((fewer, TARGET), (TARGET, fewer)):
            with pytest.raises(ValueError, match="where the clips need"):
                score(*pair)


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


def test_published_scores_are_those_codes_formulas() -> None:
    metrics = VideoMetrics(published=True)
    metrics.update(PREDICTION, TARGET)
    x, y = PREDICTION.clamp(0, 1).numpy(), TARGET.numpy()
    small_x, small_y = (np.uint8(clip * 255) for clip in (x, y))
    frames = [(b, t) for b in range(5) for t in range(3)]

    def psnr(squared: np.ndarray) -> float:
        return 20 * math.log10(255) - 10 * math.log10(squared.astype(np.float64).mean())

    wrapped = [(small_x[f] - small_y[f]) ** 2 for f in frames]
    assert wrapped[0].dtype == np.uint8
    ssim = [
        np.mean([ssim_reference(*(z[f][c].astype(np.float64) for z in (small_x, small_y)), 255) for c in range(2)])
        for f in frames
    ]
    expected = {
        "mse_predrnn": [((x[f] - y[f]) ** 2).sum() for f in frames],
        "psnr_predrnn": [psnr((small_x[f].astype(int) - small_y[f]) ** 2) for f in frames],
        "psnr_simvp": [psnr(each) for each in wrapped],
        "ssim_predrnn": ssim,
    }
    means = metrics.compute().means
    assert means.keys() == {*expected, "mse", "mae", "psnr", "ssim", "ssim_published"}
    for name, values in expected.items():
        assert means[name] == pytest.approx(np.mean(values), rel=1e-4), name


def test_a_wrapped_difference_praises_black() -> None:
    white = torch.ones(1, 1, 1, 8, 8)
    scores = published_scores(torch.zeros_like(white), white)
    # 0 - 255 is 1 in uint8.
    assert scores["psnr_simvp"].item() == pytest.approx(20 * math.log10(255))
    assert scores["psnr_predrnn"].item() == pytest.approx(0)


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of torchvision's AlexNet in a file."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = torchvision.models.AlexNet().features.state_dict(prefix="features.")
    file = tmp_path_factory.mktemp("alexnet") / "alexnet.safetensors"
    save_file(state, file)
    return file


@pytest.mark.parametrize("channels", [1, 3])
def test_lpips_is_the_librarys_on_the_same_backbone(alexnet: Path, channels: int) -> None:
    lpips = pytest.importorskip("lpips")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    layers = {name.split(".", 1)[1]: parameter for name, parameter in theirs.net.named_parameters()}
    for name, tensor in load_file(alexnet).items():
        layers[name.removeprefix("features.")].data.copy_(tensor)
    state, seed = torch.get_rng_state(), torch.Generator().manual_seed(3)
    prediction, target = (torch.rand(2, 2, channels, 40, 48, generator=seed) for _ in range(2))
    prediction = prediction * 1.5 - 0.2
    ours = frame_lpips(prediction, target, load_lpips(alexnet))
    assert torch.equal(torch.get_rng_state(), state)
    for clip in range(2):
        for frame in range(2):
            # As OpenSTL calls it: frames of (H, W, C) in [0, 255].
            images = (each[clip, frame].clamp(0, 1).permute(1, 2, 0).numpy() * 255 for each in (prediction, target))
            expected = theirs(*map(lpips.im2tensor, images)).item()
            assert ours[clip, frame].item() == pytest.approx(expected, rel=1e-4)


def test_a_checkpoint_of_torchs_is_read_without_unpickling(alexnet: Path, tmp_path: Path) -> None:
    pytest.importorskip("lpips")
    torch.save(load_file(alexnet), tmp_path / "alexnet.pth")
    nets = [load_lpips(file).state_dict() for file in (alexnet, tmp_path / "alexnet.pth")]
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth holds no AlexNet of torchvision: it has no features"):
        load_lpips(tmp_path / "other.pth")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        load_lpips(tmp_path / "nowhere.pth")


def test_lpips_names_the_frames_that_it_cannot_take(alexnet: Path) -> None:
    pytest.importorskip("lpips")
    net = load_lpips(alexnet)
    for shape in ((1, 1, 2, 40, 40), (1, 1, 1, 16, 40)):
        with pytest.raises(ValueError, match=r"LPIPS is of frames of 1 or 3 channels, 32 x 32 or more"):
            frame_lpips(torch.zeros(shape), torch.zeros(shape), net)


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
