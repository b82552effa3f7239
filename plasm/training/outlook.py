"""The clips, steps and time of a run, logged before it begins, with warnings of what will keep it from learning."""

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from plasm.data import StreamClips, weighed_batches
from plasm.tasks import total_loss

from .trainer import Trainer

ENOUGH_STEPS = 2_000
"""Steps after which a small model has learnt the motion of a simple scene: see docs/videos.md."""
_FEW_STEPS = ENOUGH_STEPS // 2
_ENOUGH_CLIPS = 500
_NEGLIGIBLE = 0.01
"""Share of what a run began with in its average of the weights, at its end."""
_SIDE = 64
_MANY_PIXELS = 128 * 160
"""Of a frame: the largest of the field's benchmarks."""
_TRIAL_CLIPS = 4


def describe(trainer: Trainer) -> list[str]:
    """Lines on a run that has been started: its clips, its steps, and the time that they will take.

    The time is that of a few clips, read and trained on here; the model is left as it was.
    """
    config, steps = trainer.config, trainer.steps_per_epoch
    clips, held_out = len(trainer.train_set), len(trainer.val_set)  # type: ignore[arg-type]
    frames, channels, height, width = trainer.train_set[0].shape
    left = config.epochs * steps - trainer.state.steps_done
    done = f", {left:,} of them left" if trainer.state.steps_done else ""
    looks = range(trainer.state.epoch + 1, config.epochs + 1)
    measured = sum(e % config.eval_every == 0 or e == config.epochs for e in looks) * min(config.val_clips, held_out)
    with torch.random.fork_rng([trainer.device] if trainer.device.type == "cuda" else []):
        seconds_a_clip = _seconds_a_clip(trainer)
    # A clip that is only looked at has no gradient: about a third of the work.
    seconds = seconds_a_clip * (left * config.batch_size + measured / 3) / trainer.group.size
    return [
        f"clips: {clips:,} to train on, {min(config.val_clips, held_out):,} for validation; each {frames} frames of "
        f"{height} x {width}, {channels} channel(s)",
        f"steps: {steps:,} an epoch of {config.batch_size} clips, {config.epochs * steps:,} in {config.epochs} "
        f"epoch(s){done}",
        f"expected time: {_duration(seconds)} on {trainer.device.type}",
    ]


def warnings(trainer: Trainer) -> list[str]:
    """Warnings of what keeps a run from learning or makes it slow, each with a remedy."""
    config, steps, found = trainer.config, trainer.steps_per_epoch, []
    total = config.epochs * steps
    # Of a run that goes on, it is too late.
    if total < _FEW_STEPS and not trainer.state.steps_done:
        advice = f"--epochs {math.ceil(ENOUGH_STEPS / steps)} makes {ENOUGH_STEPS:,}"
        clips = len(trainer.train_set)  # type: ignore[arg-type]
        if isinstance(trainer.train_set, StreamClips) and clips < _ENOUGH_CLIPS:
            stride, more = denser(trainer.train_set)
            if more > clips:
                epochs = math.ceil(ENOUGH_STEPS / max(1, min(more, config.clips_per_epoch) // config.batch_size))
                advice = (
                    f"--data-arg stride={stride} makes {more:,} clips, and --epochs {epochs} {ENOUGH_STEPS:,} steps"
                )
        found.append(f"warning: {total:,} step(s) are few to learn from: {advice}")
    parts = trainer.group.size * config.accumulate
    if parts > 1 and not trainer.task.divisible:
        found.append(
            f"warning: a {type(trainer.task).__name__} takes each part of a batch by itself, here {parts} of "
            f"{config.batch_size // parts} clips: fewer parts (--accumulate, processes) are another training"
        )
    # Weights of --init are worth something; and of a run that goes on, it is too late here, too.
    if not trainer.state.steps_done and getattr(config, "init", None) is None:
        share = config.ema**total
        if share > _NEGLIGIBLE:
            found.append(
                f"warning: after {total:,} step(s) an average with --ema {config.ema} still holds {100 * share:.3g} % "
                f"of the random initialisation: --ema {_settled(total)} holds 1 % at most, or train for more epochs"
            )
    height, width = trainer.train_set[0].shape[-2:]
    if isinstance(trainer.train_set, StreamClips) and height * width > _MANY_PIXELS:
        small = small_size(height, width)
        found.append(
            f"warning: frames of {height} x {width} take about {height * width / (small[0] * small[1]):.0f} times the "
            f'time and memory of {small[0]} x {small[1]}: --data-arg "size=({small[0]},{small[1]})"'
        )
    return found


def _settled(steps: int) -> str:
    """A decay of the average, in as few digits as it needs, that leaves 1 % of the initialisation, or somewhat less."""
    rest = 1 - _NEGLIGIBLE ** (1 / steps)
    places = math.ceil(-math.log10(rest))
    return f"{1 - (math.floor(rest * 10**places) + 1) / 10**places:.{places}f}"


def training_options(
    init: str,
    model_args: Mapping[str, Any],
    batch_size: int,
    in_chans: int,
    stream: tuple[int, int, tuple[int, int]],
    span: int,
    files: int = 10,
) -> tuple[list[str], tuple[int, int]]:
    """Options of ``plasm train`` for videos like one, from published weights.

    Args:
        init: Name of the weights.
        model_args: Arguments of the constructor that they need.
        batch_size: Clips of a step.
        in_chans: Channels that the weights take.
        stream: Frames, channels and (H, W) of the video.
        span: Frames from the first of a clip to its last, both counted.
        files: How many such videos there are; four fifths of them are trained on.

    Returns:
        The options, and the size of the frames that they ask for.
    """
    length, channels, (height, width) = stream
    size, chosen = small_size(height, width), [f"--init {init}", "--data clips", "--data-dir FOLDER"]
    for name, value in model_args.items():
        chosen.insert(0, f"--model-arg {name}={value}")
    if channels != in_chans:
        chosen.insert(0, f"--model-arg in_chans={channels}")
    if channels != 3:
        chosen.append(f"--data-arg channels={channels}")
    if size != (height, width):
        chosen.append(f'--data-arg "size=({size[0]},{size[1]})"')
    stride, clips = _enough([length] * (files * 4 // 5), span)
    steps = max(1, clips // batch_size)
    return [*chosen, f"--data-arg stride={stride}", "--lr 0.002", f"--epochs {math.ceil(ENOUGH_STEPS / steps)}"], size


def small_size(height: int, width: int) -> tuple[int, int]:
    """A size with about this aspect ratio whose longer side is 64, in steps of 4; frames are never made larger."""
    scale = min(1.0, _SIDE / max(height, width))
    if scale == 1:
        return height, width
    return max(4, 4 * round(height * scale / 4)), max(4, 4 * round(width * scale / 4))


def _enough(lengths: list[int], span: int) -> tuple[int, int]:
    for stride in range(span, 0, -1):
        count = sum(max(0, (length - span) // stride + 1) for length in lengths)
        if count >= _ENOUGH_CLIPS:
            break
    return stride, count


def denser(clips: StreamClips) -> tuple[int, int]:
    """The largest stride that makes enough clips of a folder, or else 1, and how many these are."""
    return _enough([stream.num_frames for stream in clips.streams], (clips.num_frames - 1) * clips.step + 1)


def _seconds_a_clip(trainer: Trainer) -> float:
    """Seconds that a clip takes to be read and trained on, by this process."""
    part = trainer.config.batch_size // (trainer.group.size * trainer.config.accumulate)
    # On a CPU the time goes with the clips; a GPU is full only with all of them.
    count = min(part, _TRIAL_CLIPS) if trainer.device.type == "cpu" else part
    index = [number * len(trainer.train_set) // count for number in range(count)]  # type: ignore[arg-type]
    start = time.perf_counter()
    clips, weight = next(iter(weighed_batches(trainer.train_set, [index])))
    reading = time.perf_counter() - start
    clips = clips.to(trainer.device)
    extra = () if weight is None else (weight.to(trainer.device),)
    training = min(_trial_step(trainer, clips, torch.tensor(index, device=trainer.device), extra) for _ in range(2))
    workers = trainer.config.workers
    return (max(reading / workers, training) if workers else reading + training) / count


@torch.compiler.set_stance("force_eager")
def _trial_step(trainer: Trainer, clips: Tensor, index: Tensor, extra: tuple[Tensor, ...]) -> float:
    """Seconds of one forward and backward pass, after which the model is what it was."""
    task = trainer.task
    buffers = {name: buffer.clone() for name, buffer in task.named_buffers()}
    started = time.perf_counter()
    task.train()
    with trainer.autocast:
        losses, _ = task(clips, index, trainer.state.epoch, trainer.state.steps_done, *extra)
        loss = total_loss(losses)
    loss.float().backward()
    # Waits for a device that runs ahead.
    next(p.grad for p in task.parameters() if p.grad is not None).sum().item()
    seconds = time.perf_counter() - started
    task.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, buffer in task.named_buffers():
            buffer.copy_(buffers[name])
    return seconds


def _duration(seconds: float) -> str:
    if seconds < 90:
        return "a minute or less" if seconds < 60 else "about a minute"
    if seconds < 90 * 60:
        return f"about {seconds / 60:.0f} minutes"
    if seconds < 48 * 3600:
        return f"about {seconds / 3600:.1f} hours"
    return f"about {seconds / 86400:.1f} days"
