import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from radar_files import storm
from torch import Tensor

from plasm.rain import model_forecast, optical_flow, persistence
from plasm.rain.forecasts import tiled

CPU = torch.device("cpu")


def still(clip: Tensor, num_frames: int) -> Tensor:
    return clip[:, -1:].expand(-1, num_frames, -1, -1, -1)


def test_a_model_of_pixels_forecasts_rates() -> None:
    observed = np.stack([storm(number) for number in range(6)])
    seen: list[Tensor] = []

    def predict(clip: Tensor, num_frames: int) -> Tensor:
        seen.append(clip)
        return still(clip, num_frames)

    rates = model_forecast(predict, 4, CPU)(observed, 3)
    assert seen[0].shape == (1, 4, 1, 48, 40)
    assert seen[0].isfinite().all()
    assert rates.dtype == np.float32
    np.testing.assert_allclose(rates, persistence(observed, 3), rtol=1e-4)
    with pytest.raises(ValueError, match="2 frames are observed; the model needs 4"):
        model_forecast(predict, 4, CPU)(observed[:2], 3)
    with pytest.raises(FloatingPointError, match="not finite"):
        model_forecast(lambda clip, n: still(clip, n) * float("nan"), 4, CPU)(observed, 3)


def test_optical_flow_follows_the_storm() -> None:
    pytest.importorskip("pysteps")
    pytest.importorskip("cv2")
    frames = np.stack([storm(number, 96, 96) for number in range(0, 24, 2)])
    moved = optical_flow(frames[:6], 6)
    truth, last = frames[6:], persistence(frames[:6], 6)
    valid = np.isfinite(moved) & np.isfinite(truth)
    assert np.abs(moved - truth)[valid].mean() < 0.3 * np.abs(last - truth)[valid].mean()
    assert moved.dtype == np.float32
    dry = np.zeros((3, 64, 64), np.float32)
    assert np.nanmax(optical_flow(dry, 2)) == 0


@pytest.mark.parametrize(("height", "width"), [(100, 64), (61, 130), (40, 40), (200, 90)])
def test_tiles_give_what_the_whole_gives(height: int, width: int) -> None:
    clip = torch.rand(1, 2, 1, height, width)
    kernel = torch.ones(1, 1, 3, 3) / 9

    def smooth(part: Tensor) -> Tensor:
        frames = part.flatten(0, 1)
        return torch.nn.functional.conv2d(frames, kernel, padding=1).unflatten(0, part.shape[:2])

    parts: list[Tensor] = []

    def tile(part: Tensor) -> Tensor:
        parts.append(part)
        return smooth(part)

    torch.testing.assert_close(tiled(tile, clip, 64, 16), smooth(clip), atol=2e-3, rtol=0)
    assert max(max(part.shape[-2:]) for part in parts) <= 64
    assert len(parts) == {(100, 64): 2, (61, 130): 3, (40, 40): 1, (200, 90): 8}[height, width]


def test_tiles_blend_without_a_step() -> None:
    levels = iter([0.0, 1.0])
    found = tiled(lambda part: torch.full_like(part, next(levels)), torch.zeros(1, 1, 1, 64, 112), 64, 16)[0, 0, 0]
    assert found[:, 0].max() == 0
    assert found[:, -1].min() == 1
    assert found.diff(dim=1).max() < 0.15
    assert found.diff(dim=1).min() >= 0


_REAL = """
import resource, sys
import timm, torch
import plasm
from plasm.data.radar import normalize, open_sequence
from plasm.rain.forecasts import tiled

rates = open_sequence(sys.argv[1]).rates(0, 6)
clip = normalize(torch.from_numpy(rates))[None, :, None]
model = timm.create_model("plasm_radar", pretrained=True).eval()
whole = model.predict(clip, 12)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for side in (1024, 512):
    tiles = tiled(lambda part: model.predict(part, 12), clip, side, 256)
    print(*clip.shape[-2:], peak * 1024, float((whole - tiles).abs().mean()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in another unit")
def test_a_real_composite_fits_in_4_gb_and_its_tiles_are_the_whole(full_data: Path) -> None:
    event = full_data / "radar" / "fmi"
    if not event.is_dir():
        pytest.skip(f"no {event}")
    done = subprocess.run(
        [sys.executable, "-c", _REAL, str(event / "2016*")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        # The figures of docs/rain.md.
        print(line)
        height, width, peak, difference = line.split()
        assert (height, width) == ("1226", "760")
        assert int(peak) < 4e9
        assert float(difference) < 0.005
