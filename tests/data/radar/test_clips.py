import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import ok
from radar_files import START, odim, storm, write_event

from plasm.data import create_dataset, fingerprint, weighed_batches
from plasm.data.radar import RadarClips, normalize
from plasm.data.radar import clips as decoding
from plasm.data.radar.clips import Region

pytest.importorskip("h5py")
pytest.importorskip("pyproj")


def write(root: Path) -> dict[str, Any]:
    write_event(root / "wide", count=6, height=64, width=320)
    write_event(root / "other", count=4, height=64, width=96)
    return {
        "events": {"wide/*": {"train": (0, 96), "val": (224, 320)}, "other/*": "test"},
        "size": 32,
        "cache": str(root / "cache"),
    }


def make(root: Path, split: str, frames: int = 4, seed: int = 0, num_clips: int = 40, **options: Any) -> Any:
    return create_dataset("radar", root, split, num_clips=num_clips, num_frames=frames, seed=seed, **options)  # type: ignore[arg-type]


def test_clips_are_a_function_of_seed_epoch_and_index(tmp_path: Path) -> None:
    options = write(tmp_path)
    clips = make(tmp_path, "train", **options)
    first = torch.stack([clips[index] for index in range(40)])
    assert first.shape == (40, 4, 1, 32, 32)
    assert first.min() >= 0
    assert first.max() <= 1
    again = make(tmp_path, "train", **options)
    assert torch.equal(again[7], first[7])
    again.set_epoch(1)
    assert not torch.equal(torch.stack([again[index] for index in range(40)]), first)
    assert not torch.equal(make(tmp_path, "train", seed=1, **options)[0], first[0])
    # Those to measure on depend on no seed and no epoch.
    val = make(tmp_path, "val", seed=5, **options)
    assert torch.equal(val[0], make(tmp_path, "val", **options)[0])


def test_pixels_are_those_of_the_files(tmp_path: Path) -> None:
    options = write(tmp_path)
    expected = normalize(np.stack([storm(number, 64, 96) for number in range(4)]))
    clips = make(tmp_path, "test", **options)
    found = 0
    for index in range(5):
        frame = clips[index][0, 0].numpy()
        for y in range(33):
            for x in range(65):
                found += np.allclose(frame, expected[0, y : y + 32, x : x + 32], atol=0.004)
    assert found >= 5


def test_wet_crops_are_drawn_more_often(tmp_path: Path) -> None:
    options = write(tmp_path)
    sets = [make(tmp_path, "train", num_clips=150, dry=dry, **options) for dry in (1.0, 0.0)]
    even, wet = (np.mean([clips[index].mean() for index in range(150)]) for clips in sets)
    assert wet > 1.3 * even


def test_what_is_missing_weighs_nothing_and_heavy_rain_more(tmp_path: Path) -> None:
    options = write(tmp_path)
    options["events"]["wide/*"]["train"] = (224, 320)  # whose last 6 columns no radar sees
    del options["events"]["wide/*"]["val"]
    for workers in (0, 1):
        (batch,) = weighed_batches(make(tmp_path, "train", heavy=3.0, dry=1.0, **options), [list(range(30))], workers)
        clips, weight = batch
        assert weight is not None
        assert weight.shape == clips.shape
        missing = weight == 0
        assert missing.any()
        assert clips[missing].max() == 0
        torch.testing.assert_close(weight[~missing], 1 + 3 * clips[~missing])


def test_sides_of_one_event_stay_apart(tmp_path: Path) -> None:
    options = write(tmp_path)
    options["events"]["wide/*"] = {"train": (0, 150), "val": (277, 320)}
    with pytest.raises(ValueError, match="127 columns between train and val, wanted 128"):
        make(tmp_path, "train", **options)
    seen = np.zeros((3, 64, 320), np.uint8)
    seen[..., 100:132] = 254
    seen[..., 200:] = 100
    folder = tmp_path / "made"
    folder.mkdir()
    np.save(folder / "pixels.npy", seen)
    np.save(folder / "blocks.npy", np.stack([seen.reshape(3, 2, 32, 10, 32).mean((2, 4)) / 254, np.ones((3, 2, 10))]))
    clips = RadarClips([Region("made", (), folder, (101, 231), 5.0, (1,))], 2, 200, 32, 0, dry=1.0)
    values = torch.stack([clips[index] for index in range(200)])
    assert set((values * 254).round().unique().tolist()) == {0, 100, 254}
    # Every crop lies in columns 101 to 230: 31 columns of the first band, 31 of the second.
    assert (values == 1).flatten(1).sum(1).max() <= 2 * 32 * 31
    assert ((values * 254).round() == 100).flatten(1).sum(1).max() <= 2 * 32 * 31


def test_sides_share_no_file(tmp_path: Path) -> None:
    """Two patterns may name the same files."""
    options = write(tmp_path)
    options["events"] = {"wide/*": "train", "wid*/*": "test"}
    for split in ("train", "test"):
        with pytest.raises(ValueError, match=r"wide/\* \(train\) and wid\*/\* \(test\) both name .*wide"):
            make(tmp_path, split, **options)
    options["events"] = {"wide/*": "train", "wid*/*": "train", "none/*": "test"}
    assert len(make(tmp_path, "train", **options)) > 0


def test_strides_and_steps(tmp_path: Path) -> None:
    options = write(tmp_path)
    assert [t[1] for t in make(tmp_path, "train", 3, strides=(1, 2), **options).tables] == [1, 2]
    assert [t[1] for t in make(tmp_path, "val", 3, strides=(1, 2), **options).tables] == [1]
    assert [t[1] for t in make(tmp_path, "train", 3, step=10, **options).tables] == [2]
    with pytest.raises(ValueError, match=r"wide/\* has a step of 5 minutes, wanted 7"):
        make(tmp_path, "train", step=7.0, **options)
    with pytest.raises(ValueError, match=r"wide/\* has cells of 1 km, wanted 2"):
        make(tmp_path, "train", km=2.0, **options)
    with pytest.raises(ValueError, match=r"no event .* has 7 frames, 1 apart"):
        make(tmp_path, "train", 7, **options)
    with pytest.raises(ValueError, match="too few for crops of 128"):
        make(tmp_path, "train", **{**options, "size": 128})


def test_folders_are_sides(tmp_path: Path) -> None:
    tmp_path = tmp_path / "radar [2021]"
    for name in ("train", "val"):
        write_event(tmp_path / name, count=4, height=64, width=64)
    clips = make(tmp_path, "val", size=32, cache=str(tmp_path / "cache"))
    assert clips.files[0].parent == tmp_path / "val"
    with pytest.raises(ValueError, match="no event is on the side test"):
        make(tmp_path, "test")
    options: dict[str, Any] = {"size": 32, "cache": str(tmp_path / "cache")}
    assert len(make(tmp_path, "val", events={"val/*": "val"}, **options).files) == 4


def test_other_files_are_another_fingerprint_and_another_cache(tmp_path: Path) -> None:
    options = write(tmp_path)
    clips = make(tmp_path, "train", **options)
    before, cached = fingerprint(clips, tmp_path), len(list((tmp_path / "cache").iterdir()))
    odim(tmp_path / "wide", START, storm(3, 64, 320))
    changed = make(tmp_path, "train", **options)
    assert fingerprint(changed, tmp_path) != before
    assert len(list((tmp_path / "cache").iterdir())) == cached + 1
    write_event(tmp_path / "wide", count=7, height=64, width=320)
    assert len(make(tmp_path, "train", **options).files) == 7


def test_decoding_says_how_far_it_is_and_clears_what_a_killed_process_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = write(tmp_path)
    make(tmp_path, "train", **options)
    assert "decode, once: " in capsys.readouterr().err
    (kept,) = {folder.name for folder in (tmp_path / "cache").iterdir()}
    shutil.rmtree(tmp_path / "cache" / kept)
    left = tmp_path / "cache" / f".{kept}.1"
    left.mkdir()
    (left / "pixels.npy").write_bytes(b"half")
    make(tmp_path, "train", **options)
    assert [folder.name for folder in (tmp_path / "cache").iterdir()] == [kept]


def test_one_that_is_overtaken_takes_what_the_other_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The faster one removes the folder of the slower one while it decodes."""
    options, decode = write(tmp_path), decoding._decode

    def overtaken(sequence: Any, folder: Path) -> None:
        monkeypatch.setattr(decoding, "_decode", decode)
        with monkeypatch.context() as other:
            other.setattr(os, "getpid", lambda: 1)
            make(tmp_path, "train", **options)
        decode(sequence, folder)

    monkeypatch.setattr(decoding, "_decode", overtaken)
    assert make(tmp_path, "train", **options)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_model_is_trained_on_radar(tmp_path: Path) -> None:
    for name in ("train", "val"):
        write_event(tmp_path / name, count=6, height=48, width=48)
    arguments = {"size": 32, "cache": tmp_path / "cache", "heavy": 2}
    ok(
        "train", "--model", "plasm_mmnist_tiny", "--data", "radar", "--data-dir", tmp_path, "--out", tmp_path / "run",
        *(part for name in ("in_frames=3", "out_frames=3", "encoder_dim=8", "translator_dim=16", "translator_depth=1")
          for part in ("--model-arg", name)),
        *(part for name, value in arguments.items() for part in ("--data-arg", f"{name}={value}")),
        "--epochs", 1, "--clips-per-epoch", 4, "--batch-size", 2, "--val-clips", 2,
    )  # fmt: skip
    assert "heavy = 2" in (tmp_path / "run" / "config.toml").read_text()
    assert (tmp_path / "run" / "model.safetensors").is_file()
