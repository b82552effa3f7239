"""What a run says of itself before it begins."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from plasm.data import create_dataset
from plasm.tasks import Prediction, RainPrediction, TeacherForcing
from plasm.training import TrainConfig, Trainer, run
from plasm.training.outlook import _settled, denser, describe, small_size, training_options, warnings

TINY = {"encoder_dim": 4, "translator_dim": 8, "translator_depth": 1, "num_heads": 2, "in_chans": 3,
        "in_frames": 2, "out_frames": 2}  # fmt: skip


class Normed(nn.Module):
    """Has statistics, and draws."""

    in_frames = out_frames = 2

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm3d(2), nn.Dropout(0.5)

    def forward(self, clip: Tensor) -> Tensor:
        frames: Tensor = self.drop(self.norm(clip))
        return frames


def trainer(tmp_path: Path, clips: Any, **options: Any) -> Trainer:
    options = {"epochs": 3, "batch_size": 4, "clips_per_epoch": 8, "val_clips": 2, "device": "cpu"} | options
    config = TrainConfig(model="m", data="d", data_dir=".", out=str(tmp_path / "run"), **options)
    return Trainer(Prediction(Normed()), clips, clips[:3], config)


def test_clips_steps_and_time(tmp_path: Path) -> None:
    run = trainer(tmp_path, [torch.rand(4, 1, 8, 12) for _ in range(10)])
    clips, steps, seconds = describe(run)
    assert clips == "clips: 10 to train on, 2 for validation; each 4 frames of 8 x 12, 1 channel(s)"
    assert steps == "steps: 2 an epoch of 4 clips, 6 in 3 epoch(s)"
    assert seconds == "expected time: a minute or less on cpu"


def test_the_time_grows_with_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plasm.training.outlook._seconds_a_clip", lambda trainer: 0.5)
    clips = [torch.rand(4, 1, 8, 8) for _ in range(10)]
    # 8 clips of training, and 2 without gradients for a third of it each, an epoch: 4.33 s.
    assert describe(trainer(tmp_path, clips, epochs=100))[-1] == "expected time: about 7 minutes on cpu"
    assert describe(trainer(tmp_path, clips, epochs=100, eval_every=50))[-1] == "expected time: about 7 minutes on cpu"
    assert describe(trainer(tmp_path, clips, epochs=2000))[-1] == "expected time: about 2.4 hours on cpu"


def test_the_trial_leaves_no_trace(tmp_path: Path) -> None:
    run = trainer(tmp_path, [torch.rand(4, 1, 8, 12) for _ in range(10)])
    before = {name: value.clone() for name, value in run.task.state_dict().items()}
    random = torch.random.get_rng_state()
    describe(run)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in run.task.state_dict().items())
    assert all(parameter.grad is None for parameter in run.task.parameters())


def test_too_few_steps(tmp_path: Path) -> None:
    clips = [torch.rand(4, 1, 8, 8) for _ in range(10)]
    few = trainer(tmp_path, clips, epochs=499)
    assert warnings(few) == ["warning: 998 step(s) are few to learn from: --epochs 1000 makes 2,000"]
    few.state.step = 1  # it goes on
    assert warnings(few) == []
    assert warnings(trainer(tmp_path, clips, epochs=500)) == []


def test_an_average_that_remembers_the_initialisation(tmp_path: Path) -> None:
    clips = [torch.rand(4, 1, 8, 8) for _ in range(10)]
    short = trainer(tmp_path, clips, epochs=60, ema=0.999)
    said = warnings(short)[-1]
    assert "after 120 step(s) an average with --ema 0.999 still holds 88.7 % of the random" in said
    assert "--ema 0.96 holds 1 %" in said
    # What is said is so: an average of the initialisation, 1, and of weights that are 0 from the first step on.
    average, weights = short.state.average, short.task
    assert average is not None
    for module, value in ((average.module, 1.0), (weights, 0.0)):
        for parameter in module.parameters():
            nn.init.constant_(parameter, value)
    for _ in range(120):
        average.update(weights)
    for parameter in average.module.parameters():
        assert torch.allclose(parameter, torch.tensor(0.887), atol=5e-4)
    for ema, epochs in ((0.96, 60), (0.99, 500), (0.999, 50_000), (0.0, 60)):
        assert not any("--ema" in each for each in warnings(trainer(tmp_path, clips, epochs=epochs, ema=ema)))
    assert not any("--ema" in each for each in warnings(trainer(tmp_path, clips, epochs=60, ema=0.999, init="m.w")))
    short.state.step = 1  # it goes on
    assert warnings(short) == []


@pytest.mark.parametrize("steps", [1, 2, 7, 120, 4604, 100_000])
def test_the_average_that_is_advised_has_settled(steps: int) -> None:
    """And it is no shorter than it needs to be, up to a digit."""
    decay = float(_settled(steps))
    assert decay**steps <= 0.01
    assert 1 - decay <= 2 * (1 - 0.01 ** (1 / steps))


def videos(folder: Path, count: int, length: int, height: int, width: int) -> Path:
    folder.mkdir()
    for number in range(count):
        np.save(folder / f"{number}.npy", np.zeros((length, height, width, 3), np.uint8))
    return folder


def test_a_batch_in_parts_is_another_training_for_some_tasks(tmp_path: Path) -> None:
    clips = [torch.rand(4, 1, 8, 12) for _ in range(10)]
    config = trainer(tmp_path, clips, epochs=1000, batch_size=4, accumulate=2).config
    tasks = {task: task(Normed()) for task in (Prediction, RainPrediction, TeacherForcing)}
    told = {task: warnings(Trainer(each, clips, clips[:3], config)) for task, each in tasks.items()}
    assert told[Prediction] == []
    for task in (RainPrediction, TeacherForcing):
        (line,) = told[task]
        assert f"a {task.__name__} takes each part of a batch by itself, here 2 of 2 clips" in line
        assert warnings(Trainer(tasks[task], clips, clips[:3], replace(config, accumulate=1))) == []


def test_a_folder_of_large_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: Any) -> None:
    """Twelve of them, cut where they do not overlap: what is advised is what `plasm train` then counts."""
    folder = videos(tmp_path / "clips", 12, 8, 120, 176)
    given: dict[str, Any] = {
        "model": "plasm_mmnist_tiny", "model_args": TINY, "data": "clips", "data_dir": str(folder), "device": "cpu"
    }  # fmt: skip
    run(TrainConfig(**given, out=str(tmp_path / "one"), epochs=1, batch_size=8, clips_per_epoch=8, val_clips=1))
    out = capsys.readouterr().out.splitlines()
    assert out[0].endswith("1 for validation; each 4 frames of 120 x 176, 3 channel(s)")
    assert out[1] == "steps: 1 an epoch of 8 clips, 1 in 1 epoch(s)"
    assert out[2].startswith("expected time: ")
    (few,) = [record.message for record in caplog.records if "few to learn" in record.message]
    assert "1 step(s)" in few
    train = create_dataset("clips", folder, "train", num_frames=4)
    stride, count = denser(train)  # type: ignore[arg-type]
    assert f"--data-arg stride={stride} makes {count} clips" in few
    assert count == len(create_dataset("clips", folder, "train", num_frames=4, stride=stride))  # type: ignore[arg-type]
    (large,) = [record.message for record in caplog.records if "times the" in record.message]
    assert '--data-arg "size=(44,64)"' in large
    with pytest.raises(ValueError, match=rf"fewer than a batch of 200: .*stride={stride}, which makes {count}"):
        run(TrainConfig(**given, out=str(tmp_path / "two"), batch_size=200))


@pytest.mark.parametrize(
    ("given", "size"),
    [((240, 320), (48, 64)), ((1920, 1080), (64, 36)), ((64, 64), (64, 64)), ((30, 47), (30, 47)), ((4, 900), (4, 64))],
)
def test_small_sizes(given: tuple[int, int], size: tuple[int, int]) -> None:
    assert small_size(*given) == size


def test_options_for_videos_like_one() -> None:
    options, size = training_options("m", {}, 8, 1, (300, 3, (240, 320)), span=20)
    # 71 clips in each of eight files: 568, 71 steps an epoch.
    assert " ".join(options) == (
        '--model-arg in_chans=3 --init m --data clips --data-dir FOLDER --data-arg "size=(48,64)" --data-arg stride=4 '
        "--lr 0.002 --epochs 29"
    )
    assert size == (48, 64)
    options, size = training_options("m", {}, 8, 1, (20, 1, (64, 64)), span=20)
    assert " ".join(options) == (
        "--init m --data clips --data-dir FOLDER --data-arg channels=1 --data-arg stride=1 --lr 0.002 --epochs 2000"
    )
