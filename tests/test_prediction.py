from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from video_files import frames, write_video

from plasm import pictures
from plasm.data import open_source
from plasm.prediction import PredictConfig, _rate, _save_array, predict


def test_a_video_of_every_third_frame_moves_as_fast_as_its_input(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", frames(36, 16, 16), rate=12)
    predict(PredictConfig(model="plasm_mmnist_tiny", input=str(source), step=3, frames=1, out=str(tmp_path / "o.mp4")))
    assert open_source(tmp_path / "o.mp4", 1)[0].rate == 4


@pytest.mark.parametrize("ending", ["avi", "mp4"])
def test_averages_of_a_varying_rate_can_be_written(tmp_path: Path, ending: str) -> None:
    for rate in (Fraction(1250000, 41709), Fraction(30000, 1001), Fraction(1, 3600), Fraction(120), None):
        pictures.movie(torch.zeros(3, 1, 16, 16), tmp_path / f"a.{ending}", _rate(rate, 1))
        assert open_source(tmp_path / f"a.{ending}", 1)[0].rate == pytest.approx(rate or 10, rel=1e-5)


def test_radar_is_refused_where_clips_are_read() -> None:
    with pytest.raises(ValueError, match=r"plasm\.rain\.predict_rain"):
        predict(PredictConfig(data="radar", input="composites"))


@pytest.mark.parametrize(("ending", "write"), [
    ("npy", lambda clip, file: _save_array(clip, file)),
    ("png", lambda clip, file: pictures.save_png(pictures.strip(clip, clip), file)),
    ("gif", lambda clip, file: pictures.animation(clip, clip, None, file)),
])  # fmt: skip
def test_a_forecast_that_cannot_be_written_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, write: Callable[[torch.Tensor, Path], None]
) -> None:
    """A disk may be full before the end of a file."""
    file = tmp_path / f"prediction.{ending}"
    write(torch.zeros(1, 2, 1, 8, 8), file)
    before = file.read_bytes()
    for owner in (np, Image.Image):

        def fail_at_the_end(*args: Any, save: Any = owner.save, **options: Any) -> None:
            save(*args, **options)
            raise OSError("no space left on device")

        monkeypatch.setattr(owner, "save", fail_at_the_end)
    with pytest.raises(OSError, match="no space"):
        write(torch.ones(1, 2, 1, 8, 8), file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
