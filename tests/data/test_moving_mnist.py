import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from plasm.data import (
    SAMPLES,
    MovingMNIST,
    create_dataset,
    list_datasets,
    load_digits,
    moving_mnist_clips,
    read_clips,
)
from plasm.data.moving_mnist import NUM_DIRECTIONS, ONE, STEP, _velocities, trajectories


def step_by_step(start: int, velocity: int, num_frames: int) -> list[int]:
    """The field's loop: step, stop at an edge, turn back."""
    places, place = [], start
    for _ in range(num_frames):
        place += velocity
        if place <= 0:
            place, velocity = 0, -velocity
        if place >= ONE:
            place, velocity = ONE, -velocity
        places.append(place)
    return places


@given(st.integers(0, ONE - 1), st.integers(-ONE + 1, ONE - 1), st.integers(1, 60))
def test_trajectories_are_the_fields_loop(start: int, velocity: int, num_frames: int) -> None:
    closed = trajectories(torch.tensor([start]), torch.tensor([velocity]), num_frames)
    assert closed[0].tolist() == step_by_step(start, velocity, num_frames)


@given(st.integers(0, ONE - 1), st.sampled_from([-1, 0, 1, round(STEP * ONE), -round(STEP * ONE)]))
def test_trajectories_at_the_ends_of_the_range_of_speeds(start: int, velocity: int) -> None:
    closed = trajectories(torch.tensor([start]), torch.tensor([velocity]), 40)
    assert closed[0].tolist() == step_by_step(start, velocity, 40)


def test_no_velocity_is_so_near_a_half_that_a_sine_could_turn_it() -> None:
    exact = STEP * ONE * np.sin(2 * np.pi * np.arange(NUM_DIRECTIONS, dtype=np.longdouble) / NUM_DIRECTIONS)
    distance = np.abs(exact - np.floor(exact) - 0.5)
    assert distance.min() > 1e-6
    speed = _velocities(torch.device("cpu")).double().norm(dim=1) / ONE
    assert (speed - STEP).abs().max() < 1e-6
    assert len(set(map(tuple, _velocities(torch.device("cpu")).tolist()))) == NUM_DIRECTIONS


def draw_clip(digits: torch.Tensor, split: str, index: int, seed: int, epoch: int, num_frames: int) -> np.ndarray:
    """One clip with loops, from the same numbers."""
    from test_counter_hash import reference  # the hash on Python's integers

    code = {"train": 0, "val": 1, "test": 2}[split]
    clip = np.zeros((num_frames, 64, 64), np.uint8)
    for number in (0, 1):
        bits = [reference(seed, code, epoch, index, number, draw) >> 32 for draw in range(4)]
        digit = digits[bits[0] * len(digits) >> 32].numpy()
        angle = 2 * math.pi * (bits[1] * NUM_DIRECTIONS >> 32) / NUM_DIRECTIONS
        velocity = [round(STEP * ONE * f(angle)) for f in (math.sin, math.cos)]
        start = [b * ONE >> 32 for b in bits[2:]]
        paths = [step_by_step(s, v, num_frames) for s, v in zip(start, velocity, strict=True)]
        for t in range(num_frames):
            top, left = (int(36 * path[t] / ONE) for path in paths)
            window = clip[t, top : top + 28, left : left + 28]
            np.maximum(window, digit, out=window)
    return clip


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_clips_are_those_of_a_loop_over_frames(sample_root: Path, split: str) -> None:
    digits = load_digits(sample_root, split)  # type: ignore[arg-type]
    index = torch.tensor([0, 5, 999_999])
    clips = moving_mnist_clips(digits, split, index, seed=3, epoch=2, num_frames=25)  # type: ignore[arg-type]
    for clip, i in zip(clips, index.tolist(), strict=True):
        np.testing.assert_array_equal(clip.numpy(), draw_clip(digits, split, i, 3, 2, 25))


def sha256_of_evaluation_set(digits: torch.Tensor, num_clips: int) -> str:
    digest = hashlib.sha256()
    for first in range(0, num_clips, 100):
        digest.update(moving_mnist_clips(digits, "test", torch.arange(first, first + 100)).numpy().tobytes())
    return digest.hexdigest()


def test_the_evaluation_set_never_changes(mnist_root: Path) -> None:
    digest = sha256_of_evaluation_set(load_digits(mnist_root, "test"), 10_000)
    assert digest == "98101dc2374e627f98d4ea1c19881bc826e6c4a7c9368db767d21f08058b76f3"


def test_the_sample_clips_are_the_first_of_the_evaluation_set(mnist_root: Path) -> None:
    clips = moving_mnist_clips(load_digits(mnist_root, "test"), "test", torch.arange(8)).unsqueeze(2)
    assert torch.equal(read_clips(SAMPLES / "clips.npz", 1), clips.float() / 255)


def test_an_evaluation_set_of_the_sample_digits_never_changes(sample_root: Path) -> None:
    digest = sha256_of_evaluation_set(load_digits(sample_root, "test"), 200)
    assert digest == "1b18ab3812c37915db7aa6be262f819daa1f7c74e1b1ebb83fa81962643f6975"


def test_a_clip_is_the_same_alone_in_a_batch_and_from_a_worker(sample_root: Path) -> None:
    dataset = MovingMNIST(load_digits(sample_root, "train"), "train", num_clips=8, seed=1)
    dataset.set_epoch(4)
    batch = torch.stack([dataset[i] for i in range(8)])
    assert torch.equal(dataset.get_batch(range(8)), batch)
    # Torch's own collation, of the list that its loader asks for.
    loader: DataLoader[torch.Tensor] = DataLoader(dataset, 2, num_workers=2)
    assert torch.equal(torch.cat(list(loader)), batch)
    assert [clip.shape for clip in dataset.__getitems__([3, 4])] == [(20, 1, 64, 64)] * 2
    with pytest.raises(IndexError, match="clip 8 of 8"):
        dataset.__getitems__([0, 8])


def test_clips_differ_by_epoch_seed_split_and_index(sample_root: Path) -> None:
    digits = load_digits(sample_root, "test")
    index = torch.tensor([0, 1])
    clips = [
        moving_mnist_clips(digits, "train", index),
        moving_mnist_clips(digits, "train", index, epoch=1),
        moving_mnist_clips(digits, "train", index, seed=1),
        moving_mnist_clips(digits, "val", index),
    ]
    flat = torch.cat(clips).flatten(1)
    assert len(flat.unique(dim=0)) == len(flat)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_clips_are_the_same_on_a_gpu(sample_root: Path) -> None:
    digits = load_digits(sample_root, "train")
    index = torch.arange(64)
    assert torch.equal(
        moving_mnist_clips(digits.cuda(), "train", index).cpu(), moving_mnist_clips(digits, "train", index)
    )


def test_dataset_gives_floats_and_knows_its_end(sample_root: Path) -> None:
    dataset = create_dataset("mmnist", sample_root, "test", num_clips=3, num_frames=12)
    clip = dataset[2]
    assert clip.shape == (12, 1, 64, 64)
    assert clip.dtype == torch.float32
    assert clip.min() == 0
    assert 0.9 < clip.max() <= 1
    with pytest.raises(IndexError):
        dataset[3]


def test_evaluation_clips_do_not_depend_on_the_run(sample_root: Path) -> None:
    for split, same in (("val", True), ("test", True), ("train", False)):
        one, other = (create_dataset("mmnist", sample_root, split, seed=s)[0] for s in (0, 1))  # type: ignore[arg-type]
        assert torch.equal(one, other) == same


def test_the_public_test_file(tmp_path: Path) -> None:
    assert {"mmnist", "mmnist_public"} < set(list_datasets())
    clips = np.random.default_rng(0).integers(0, 256, (20, 5, 64, 64), dtype=np.uint8)
    with pytest.raises(FileNotFoundError, match=r"mnist_test_seq\.npy"):
        create_dataset("mmnist_public", tmp_path, "test")
    np.save(tmp_path / "mnist_test_seq.npy", clips)
    dataset = create_dataset("mmnist_public", tmp_path, "test")
    assert len(dataset) == 5  # type: ignore[arg-type]
    assert torch.equal(dataset[3], torch.from_numpy(clips[:, 3:4]).float() / 255)
    assert torch.equal(create_dataset("mmnist_public", tmp_path, "test", num_frames=8)[3], dataset[3][:8])


@pytest.mark.parametrize("order", ["ntchw", "nthwc", "nthw", "tnhw", "tnchw"])
def test_the_public_test_file_is_read_in_whatever_order_it_lies(tmp_path: Path, order: str) -> None:
    clips = np.random.default_rng(0).integers(0, 256, (5, 20, 1, 8, 8), dtype=np.uint8)  # n t c h w
    np.save(tmp_path / "mnist_test_seq.npy", np.einsum(f"ntchw->{order if 'c' in order else order + 'c'}", clips)
            .reshape([dict(zip("ntchw", clips.shape, strict=True))[axis] for axis in order]))  # fmt: skip
    dataset = create_dataset("mmnist_public", tmp_path, "test")
    assert len(dataset) == 5  # type: ignore[arg-type]
    for index in range(5):
        assert torch.equal(dataset[index], torch.from_numpy(clips[index]).float() / 255)


@pytest.mark.parametrize(
    ("shape", "num_frames", "message"),
    [((20, 20), 20, "either could be the 20 frames"), ((20, 30), 30, "either could be the 20 or 30 frames"),
     ((7, 9), 20, "none of them can"), ((5, 20), 30, "5 clips of 20 frames, wanted 30"), ((20, 0), 20, "0 clips")],
)  # fmt: skip
def test_a_public_test_file_in_doubt_is_refused(
    tmp_path: Path, shape: tuple[int, int], num_frames: int, message: str
) -> None:
    np.save(tmp_path / "mnist_test_seq.npy", np.zeros((*shape, 8, 8), np.uint8))
    with pytest.raises(ValueError, match=message):
        create_dataset("mmnist_public", tmp_path, "test", num_frames=num_frames)
    if shape == (20, 20):
        clips = [create_dataset("mmnist_public", tmp_path, "test", frames_axis=axis) for axis in (0, 1)]
        assert [len(each) for each in clips] == [20, 20]  # type: ignore[arg-type]


def test_errors_say_what_is_wrong(tmp_path: Path, sample_root: Path) -> None:
    with pytest.raises(ValueError, match=r"'kitti'.*mmnist"):
        create_dataset("kitti", sample_root, "test")
    np.save(tmp_path / "mnist_test_seq.npy", np.zeros((2, 3, 4, 4)))
    with pytest.raises(ValueError, match="uint8"):
        create_dataset("mmnist_public", tmp_path, "test")
    np.save(tmp_path / "mnist_test_seq.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        create_dataset("mmnist_public", tmp_path, "test")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_clips_made_on_another_device_are_the_very_same(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    digits = load_digits(SAMPLES, "train")
    here, there = (MovingMNIST(digits, "train", 100, 20, seed=3) for _ in range(2))
    assert there.to(device) is there
    for dataset in (here, there):
        dataset.set_epoch(5)
    clips = there.get_batch([7, 99])
    assert clips.device.type == device
    assert torch.equal(clips.cpu(), here.get_batch([7, 99]))
