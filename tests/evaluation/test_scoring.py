from pathlib import Path

import pytest
import torch

from plasm.data import create_dataset
from plasm.distributed import ProcessGroup
from plasm.evaluation import BASELINES, VideoMetrics, evaluate


def test_every_clip_counts_once_whatever_the_batches(sample_root: Path) -> None:
    dataset = create_dataset("mmnist", sample_root, "test", num_clips=7)
    whole = VideoMetrics()
    clips = torch.stack([dataset[i] for i in range(7)])
    whole.update(clips[:, 9:10].expand(-1, 10, -1, -1, -1), clips[:, 10:])
    for batch_size in (1, 3, 7, 50):
        table = evaluate(BASELINES, dataset, 10, 10, batch_size=batch_size)
        assert table["last frame"].num_clips == 7
        for name, value in whole.compute().means.items():
            assert abs(table["last frame"].means[name] - value) < 1e-4 * abs(value), name


def test_the_first_clips_alone(sample_root: Path) -> None:
    dataset = create_dataset("mmnist", sample_root, "test", num_clips=7)
    table = evaluate(BASELINES, dataset, 10, 10, num_clips=2, batch_size=5, ssim=False)
    expected = torch.stack([dataset[i][10:] for i in range(2)]).square().sum((2, 3, 4)).mean()
    assert abs(table["black"].means["mse"] - expected.item()) < 1e-3
    assert set(table["black"].means) == {"mse", "mae", "psnr"}


def test_baselines_score_what_they_do_on_moving_mnist(mnist_root: Path) -> None:
    dataset = create_dataset("mmnist", mnist_root, "test")
    table = evaluate(BASELINES, dataset, 10, 10, num_clips=500, ssim=False)
    assert 165 < table["black"].means["mse"] < 185
    assert 270 < table["last frame"].means["mse"] < 305


def test_fewer_clips_than_processes_is_an_error(sample_root: Path) -> None:
    clips = create_dataset("mmnist", sample_root, "test", num_clips=2)
    with pytest.raises(ValueError, match="2 clips are too few for 3 processes"):
        evaluate(BASELINES, clips, 10, 10, group=ProcessGroup(0, 3, torch.device("cpu")))
