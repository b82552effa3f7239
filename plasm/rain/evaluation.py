"""``plasm evaluate --data radar``: a model beside persistence and optical flow, on whole composites."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from plasm.data.radar import ReadOptions, open_sequence
from plasm.data.radar import Sequence as Event
from plasm.data.radar.clips import columns_of, events_of, nearest_stride
from plasm.data.radar.sequence import below
from plasm.devices import choose_device, clear_failures, move
from plasm.distributed import SINGLE_PROCESS, ProcessGroup, init_process_group
from plasm.evaluation import EvaluateConfig, forecast
from plasm.files import atomic_write, check_writable
from plasm.models import ModelInterface, frame_counts, load_model

from . import pictures
from .forecasts import Forecast, has_optical_flow, model_forecast, optical_flow, persistence
from .scores import RainScores

_EVERY = 3


@dataclass(frozen=True)
class RainClips:
    """Clips of whole composites.

    Attributes:
        events: The events, and the columns of each that count.
        starts: (event, first frame) of each clip.
        stride: Frames from one of a clip to its next.
        minutes: Minutes between them.
        km: Kilometres from cell to cell.
    """

    events: tuple[tuple[Event, slice], ...]
    starts: tuple[tuple[int, int], ...]
    stride: int
    minutes: float
    km: float

    def __len__(self) -> int:
        return len(self.starts)

    def rates(self, number: int, count: int) -> np.ndarray:
        """Frames of a clip: (count, H, W) in mm/h, NaN where missing."""
        at, start = self.starts[number]
        event, columns = self.events[at]
        return event.rates(start, count, self.stride)[..., columns]


def open_clips(root: Path, num_frames: int, given: dict[str, Any]) -> RainClips:
    """The clips of the test side.

    Args:
        root: Folder of the files; of one event without ``events``.
        num_frames: T + T'.
        given: Options: those of ``ReadOptions``; ``events`` as of the data set ``radar``, of which the side test
            counts; ``every``, frames from one clip's first to the next one's, 3 by default, or ``starts``, the first
            frames themselves; ``stride``, frames from one of a clip to its next, or ``step``, the minutes between them
            that the model is for; and ``km``, which the files must have to a quarter, where they say it.

    Raises:
        ValueError: If an option is wrong, the files are no events or too short, or differ in step or spacing.
    """
    rest = dict(given)
    events, stride, step = rest.pop("events", None), rest.pop("stride", None), rest.pop("step", None)
    every, starts, km = rest.pop("every", _EVERY), rest.pop("starts", None), rest.pop("km", None)
    for name in ("size", "strides", "dry", "heavy", "cache"):
        # Those of training, so that the same options serve both.
        rest.pop(name, None)
    if unknown := sorted(set(rest) - set(ReadOptions.names())):
        known = ", ".join(["events", "every", "starts", "stride", "step", "km", *ReadOptions.names()])
        raise ValueError(f"radar has no option {', '.join(unknown)} here; it has: {known}")
    if not all(isinstance(value, int) and value > 0 for value in (every, 1 if stride is None else stride)):
        raise ValueError(f"every and stride are numbers of frames of at least 1, got {every!r} and {stride!r}")
    if not all(value is None or (isinstance(value, int | float) and value > 0) for value in (step, km)):
        raise ValueError(f"step and km are minutes and kilometres above 0, got {step!r} and {km!r}")
    if not isinstance(starts, list | tuple | None):
        raise ValueError(f"starts are the first frames of clips, such as (0, 12, 24), got {starts!r}")
    options = ReadOptions(**rest)
    named = [("", None)] if events is None and not (root / "test").is_dir() else events_of(root, "test", events)
    found: list[tuple[Event, slice]] = []
    for name, columns in named:
        event = open_sequence(below(root, name), options)
        found.append((event, slice(*columns_of(name, event, columns))))
    first = found[0][0]
    for event, _ in found[1:]:
        if event.minutes != first.minutes or not _near(event.grid.km, first.grid.km):
            raise ValueError(
                f"events differ: {first.minutes:g} minutes and {first.grid} in {first.frames[0].file}, "
                f"{event.minutes:g} minutes and {event.grid} in {event.frames[0].file}"
            )
    spacing = first.grid.km or km
    if spacing is None:
        raise ValueError(f"{first.frames[0].file} does not say how large its cells are: give km=")
    nearest = nearest_stride(str(first.frames[0].file.parent), first, step or first.minutes, km or spacing)
    if stride is not None and step is not None and stride != nearest:
        raise ValueError(
            f"step={step:g} is a stride of {nearest} here, got stride={stride} beside it: give one of them"
        )
    stride = stride or (1 if step is None else nearest)
    span = (num_frames - 1) * stride + 1
    chosen = []
    for number, (event, _) in enumerate(found):
        wanted = range(0, len(event) - span + 1, every) if starts is None else starts
        for start in wanted:
            if not isinstance(start, int) or not 0 <= start <= len(event) - span:
                raise ValueError(
                    f"starts: {event.frames[0].file.parent} has {len(event)} frames, clips of {span} start at 0 to "
                    f"{len(event) - span}, got {start!r}"
                )
            chosen.append((number, start))
    if not chosen:
        raise ValueError(f"{root} has {max(len(e) for e, _ in found)} frames a test event, too few for clips of {span}")
    return RainClips(tuple(found), tuple(chosen), stride, first.minutes * stride, float(spacing))


def _near(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and abs(one / other - 1) < 0.02)


def baselines() -> dict[str, Forecast]:
    """Persistence and, where pysteps is installed, its extrapolation by Lucas-Kanade's optical flow."""
    return {"persistence": persistence} | ({"optical flow": optical_flow} if has_optical_flow() else {})


def evaluate_rain(
    forecasts: dict[str, Forecast],
    clips: RainClips,
    in_frames: int,
    leads: int,
    *,
    num_clips: int | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    done: Callable[[], None] | None = None,
) -> RainScores:
    """Measure forecasts on the same clips and the same cells, each clip in one process.

    Args:
        forecasts: Each maps observed rates (T, H, W) and T' to (T', H, W).
        clips: Of T + T' frames.
        in_frames: T.
        leads: T'.
        num_clips: Number of clips to use, from the first; all by default.
        group: The processes that measure together.
        done: Called after each clip.

    Returns:
        The scores, over the clips of all processes.
    """
    total = len(clips) if num_clips is None else min(num_clips, len(clips))
    if total < group.size:
        raise ValueError(f"{total} clips are too few for {group.size} processes")
    scores = RainScores(list(forecasts), leads, clips.km)
    part = group.part(list(range(total)))
    for number in tqdm(part, desc="evaluate", unit="clip", leave=False, disable=None if group.is_first else True):
        rates = clips.rates(number, in_frames + leads)
        observed, truth = rates[:in_frames], rates[in_frames:]
        scores.update({name: make(observed, leads) for name, make in forecasts.items()}, truth)
        if done is not None:
            done()
    scores.add_up(group.sum)
    return scores


@dataclass(frozen=True)
class RainEvaluation:
    """The result of an evaluation on radar.

    Attributes:
        scores: Of the model and of the baselines.
        num_clips: How many.
        in_frames: T.
        leads: T'.
        minutes: From lead time to lead time.
        km: Kilometres from cell to cell.
        files: What was written.
    """

    scores: RainScores
    num_clips: int
    in_frames: int
    leads: int
    minutes: float
    km: float
    files: list[Path]


def run(config: EvaluateConfig) -> RainEvaluation | None:
    """Measure weights on radar beside the baselines, and write tables and pictures: ``plasm evaluate --data radar``.

    Under torchrun every process calls it, with the same arguments.

    Returns:
        What was measured, in the first process; None in the others.

    Raises:
        ValueError: If the model or an option does not fit radar.
        OSError: If weights or composites cannot be read, or the scores not be written.
        MemoryError: If memory ran out.
    """
    if config.per_frame or config.published or config.lpips is not None:
        raise ValueError(
            "--data radar takes no --per-frame, --published and --lpips: scores.csv has every score by lead time"
        )
    check_writable(Path(config.out) / "scores.csv")
    net = load_model(config.model, config.weights, trust=config.trust)
    if (channels := ModelInterface.of(net).in_chans) not in (None, 1):
        raise ValueError(f"radar has 1 channel, {config.weights or config.model} takes {channels}")
    in_frames, out_frames = frame_counts(net)
    leads = config.frames or out_frames
    clips = open_clips(Path(config.data_dir), in_frames + leads, dict(config.data_args))
    with clear_failures("fewer --frames take less"), init_process_group(choose_device(config.device)) as group:
        model = model_forecast(forecast(move(net, group.device)), in_frames, group.device)
        forecasts = {"model": model, **baselines()}
        scores = evaluate_rain(forecasts, clips, in_frames, leads, num_clips=config.num_clips, group=group)
    if not group.is_first:
        return None
    files = write_scores(scores, clips.minutes, Path(config.out))
    count = min(len(clips), config.num_clips)
    return RainEvaluation(scores, count, in_frames, leads, clips.minutes, clips.km, files)


def write_scores(scores: RainScores, minutes: float, folder: Path) -> list[Path]:
    """Write tables (scores.csv, spectra.csv) and pictures (by lead time, performance diagram); give the files."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, spectra = scores.rows(minutes), scores.spectra(minutes)
    files = [folder / name for name in ("scores.csv", "lead_times.png", "performance.png")]
    _write(rows, files[0])
    pictures.draw_curves(rows, files[1])
    pictures.draw_performance(rows, files[2])
    if spectra:
        files.append(folder / "spectra.csv")
        _write(spectra, files[-1])
    return files


def _write(rows: Sequence[dict[str, Any]], file: Path) -> None:
    with atomic_write(file) as beside, beside.open("w", newline="", encoding="utf-8") as handle:
        table = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()})
