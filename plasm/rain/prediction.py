"""``plasm predict --data radar``: what follows the last composites of a folder."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from plasm._version import __version__
from plasm.data.radar import ReadOptions, Sequence, open_sequence
from plasm.devices import choose_device, move
from plasm.evaluation import forecast
from plasm.files import check_writable
from plasm.models import ModelInterface, frame_counts, load_model, public_name
from plasm.weights import entries, file_sha256
from plasm.weights.files import WEIGHTS_NAME

from . import pictures
from .forecasts import has_optical_flow, model_forecast, optical_flow
from .netcdf import write_forecast

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RainPrediction:
    """The result of a forecast.

    Attributes:
        rates: (T', H, W) in mm/h, NaN where missing.
        start: Time of the last observed frame.
        minutes: From lead time to lead time.
        truth: Of as many of the lead times as were observed, (n, H, W).
        flow: Of optical flow, (T', H, W), where it is installed.
        files: What was written.
    """

    rates: np.ndarray
    start: datetime
    minutes: float
    truth: np.ndarray
    flow: np.ndarray | None
    files: tuple[Path, ...]


def predict_rain(
    source: str,
    *,
    model: str | None = None,
    weights: str | None = None,
    frames: int | None = None,
    step: int = 1,
    out: str = "forecast.nc",
    device: str = "auto",
    trust: bool = False,
    data_args: dict[str, Any] | None = None,
) -> RainPrediction:
    """Forecast rain from radar files, and write it as CF NetCDF and, beside that, as a picture.

    Args:
        source: Folder of composites, file, or pattern: one event without gaps.
        model: See ``load_model``.
        weights: See ``load_model``.
        frames: T'; the model's by default.
        step: Distance between the frames that are used, counted from the last.
        out: .nc; or a folder, for forecast.nc in it.
        device: See ``choose_device``.
        trust: See ``load_model``.
        data_args: Options of ``ReadOptions``, and ``at``: time of the last frame to use, such as 2021-07-14T12:00; what
            comes after it is drawn as the truth. By default the last one there is.

    Raises:
        ValueError: If the files are no event, or do not fit the model.
        OSError: If they cannot be read, or the forecast not be written.
        ImportError: If reading them needs a package that is not installed.
    """
    file = _out_file(Path(out))
    check_writable(file)
    options, at = _options(dict(data_args or {}))
    net = move(load_model(model, weights, trust=trust), choose_device(device)).eval()
    if (channels := ModelInterface.of(net).in_chans) not in (None, 1):
        raise ValueError(f"radar has 1 channel, {weights or model} takes {channels}")
    in_frames, out_frames = frame_counts(net)
    leads = frames or out_frames
    event = open_sequence(source, options)
    last = event.index(at) if at else len(event) - 1
    needed = (in_frames - 1) * step + 1
    if last + 1 < needed:
        raise ValueError(
            f"{source} has {last + 1} frames up to {event.frames[last].time:%Y-%m-%d %H:%M}; the model needs {needed}"
        )
    # Two past frames at least, for optical flow, where there are.
    count = in_frames if in_frames > 2 else min(3, last // step + 1)
    observed = event.rates(last - (count - 1) * step, count, step)
    truth = _truth(event, last, leads, step)
    name = public_name(weights) if weights else model or ""
    published = next((row for row in entries() if name in (row.name, row.model)), None)
    if published and published.data != "radar":
        _logger.warning("%s was trained on %s, not on radar: its forecast is of no use", published.name, published.data)
    predict = model_forecast(forecast(net), in_frames, choose_device(device))
    rates = predict(observed, leads)
    flow = optical_flow(observed, leads) if has_optical_flow() and len(observed) > 1 else None
    start, minutes = event.frames[last].time, event.minutes * step
    attributes = {
        "source": f"plasm {__version__}",
        "model": type(net).__name__ if model is None else model,
        "weights": published.name if published else name,
        **({"weights_sha256": published.sha256} if published else _digest(weights)),
        "institution": "",
        "history": f"forecast from {in_frames} frames up to {start:%Y-%m-%d %H:%M}",
        "references": "",
        "comment": f"radar as {event.frames[last].quantity}; missing where the last frame is",
        "input_frames": ", ".join(f.file.name for f in event.frames[last + 1 - needed : last + 1 : step]),
        "step_minutes": minutes,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_forecast(rates, event.grid, start, minutes, attributes, file)
    picture = file.with_suffix(".png")
    rows = {"forecast": rates} | ({"optical flow": flow} if flow is not None else {})
    if len(truth):
        missing = np.full((leads - len(truth), *truth.shape[1:]), np.nan, np.float32)
        rows = {"observed": np.concatenate([truth, missing]), **rows}
    lead_minutes = [(lead + 1) * minutes for lead in range(leads)]
    pictures.draw_forecast(rows, lead_minutes, observed[-1], picture, f"{start:%Y-%m-%d %H:%M} UTC, {name}")
    return RainPrediction(rates, start, minutes, truth, flow, (file, picture))


def _digest(weights: str | None) -> dict[str, str]:
    """The weights' sha256, where they are a file or a folder of this machine."""
    path = Path(weights) if weights else Path()
    file = path / WEIGHTS_NAME if path.is_dir() else path
    return {"weights_sha256": file_sha256(file)} if weights and file.is_file() else {}


def _truth(event: Sequence, last: int, leads: int, step: int) -> np.ndarray:
    known = min(leads, (len(event) - 1 - last) // step)
    if not known:
        return np.zeros((0, event.grid.height, event.grid.width), np.float32)
    return event.rates(last + step, known, step)


def _out_file(out: Path) -> Path:
    if out.suffix.lower() in (".nc", ".nc4"):
        if out.is_dir():
            raise IsADirectoryError(f"{out} is a folder; --out is a .nc file or a folder without that ending")
        return out
    if out.suffix and not out.is_dir():
        raise ValueError(f"{out}: a forecast of rain is written as NetCDF, .nc, or into a folder")
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file; --out is a .nc file or a folder")
    return out / "forecast.nc"


def _options(given: dict[str, Any]) -> tuple[ReadOptions, datetime | None]:
    at = given.pop("at", None)
    if unknown := sorted(set(given) - set(ReadOptions.names())):
        raise ValueError(f"--data-arg of radar takes at, {', '.join(ReadOptions.names())}, got {', '.join(unknown)}")
    if at is None:
        return ReadOptions(**given), None
    try:
        time = datetime.fromisoformat(str(at))
    except ValueError as error:
        raise ValueError(f"at is a time such as 2021-07-14T12:00, got {at!r}") from error
    if time.tzinfo is not None:
        time = time.replace(tzinfo=None) - (time.utcoffset() or timedelta())
    return ReadOptions(**given), time
