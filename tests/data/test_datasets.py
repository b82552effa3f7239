from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor
from torch.utils.data import TensorDataset

from plasm.cli import main
from plasm.data import count_clips, create_dataset, list_datasets, register_dataset
from plasm.data.datasets import _DATASETS


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr("plasm.data.datasets._DATASETS", dict(_DATASETS))


def test_a_users_data_set(tmp_path: Path) -> None:
    @register_dataset("boats")
    def boats(root: Path, split: str, *, num_clips: int, num_frames: int, seed: int, wind: int = 0) -> TensorDataset:
        assert root == tmp_path
        return TensorDataset(torch.full((num_clips, num_frames, 1, 4, 4), wind + seed))

    assert "boats" in list_datasets()
    clips = create_dataset("boats", tmp_path, "val", num_clips=3, num_frames=5, seed=1, wind=2)
    assert len(clips) == 3  # type: ignore[arg-type]
    assert torch.equal(clips[0][0], torch.full((5, 1, 4, 4), 3))
    with pytest.raises(ValueError, match="boats has no option sun; it has: wind"):
        create_dataset("boats", tmp_path, "val", sun=1)
    with pytest.raises(ValueError, match="split is one of train, val, test, got 'all'"):
        create_dataset("boats", tmp_path, "all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="taken already"):
        register_dataset("boats")
    with pytest.raises(ValueError, match="colon"):
        register_dataset("my:boats")


def test_options_of_the_wrong_kind_are_named(tmp_path: Path) -> None:
    for option, value, kind in (
        ("size", 64, r"tuple\[int, int\] \| None"), ("size", "64", r"tuple\[int, int\] \| None"),
        ("size", (64, 6.5), r"tuple\[int, int\] \| None"), ("step", 1.5, "int"), ("stride", "a", r"int \| None"),
        ("value_range", 5, r"tuple\[float, float\] \| None"), ("value_range", ("a", 1), r"tuple\[float"),
        ("val_share", "x", "float"), ("channels", "1", "int"), ("fill", "x", r"float \| None"),
        # Equal to the defaults, and no whole numbers; a text, which would count as true.
        ("step", 1.0, "int"), ("step", True, "int"), ("channels", 3.0, "int"), ("verify", "no", "bool"),
        ("verify", 2, "bool"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"clips: {option} is {kind}.*, got "):
            create_dataset("clips", tmp_path, "train", num_frames=5, **{option: value})
    with pytest.raises(ValueError, match=r"radar: strides is tuple\[int, \.\.\.\].*got \(1, 'a'\)"):
        create_dataset("radar", tmp_path, "train", strides=(1, "a"))
    with pytest.raises(FileNotFoundError):
        create_dataset("clips", tmp_path, "train", size=[64, np.int64(64)], val_share=0, value_range=(0, 255), step=1)


def test_a_module_that_registers_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plasm_test_ships.py").write_text(
        "import torch\nfrom plasm.data import register_dataset\n\n"
        "@register_dataset('ships')\n"
        "def ships(root, split, *, num_clips, num_frames, seed):\n"
        "    return torch.zeros(num_clips, num_frames, 1, 2, 2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    clips: Tensor = create_dataset("plasm_test_ships:ships", tmp_path, "train", num_clips=2)  # type: ignore[assignment]
    assert clips.shape == (2, 20, 1, 2, 2)
    with pytest.raises(ImportError, match="plasm_no_such_module"):
        create_dataset("plasm_no_such_module:ships", tmp_path, "train")


@pytest.mark.parametrize(("name", "num_frames"), [("taxibj", 8), ("kth", 30), ("human36m", 8), ("kitticaltech", 11)])
def test_counts_are_near_the_papers_where_the_full_data_is(full_data: Path, name: str, num_frames: int) -> None:
    """Near, since the paper does not say how its clips were cut; docs/data says how ours are."""
    root = full_data / name
    if not root.is_dir():
        pytest.skip(f"needs the whole of {name} in {name} in the folder that PLASM_DATA names")
    counts = count_clips(name, root, num_frames=num_frames)
    training = counts["train"][0] + counts["val"][0]
    for number, published in ((training, counts["train"][1]), (counts["test"][0], counts["test"][1])):
        print(f"{name}: {number} clips here, {published} in the paper")
        assert number == pytest.approx(published, rel=0.02)


def test_the_papers_counts_are_for_clips_of_its_length(tmp_path: Path) -> None:
    @register_dataset("boats", published={"train": 7}, published_frames=(5, 6))
    def boats(root: Path, split: str, *, num_clips: int, num_frames: int, seed: int) -> TensorDataset:
        return TensorDataset(torch.zeros(2, num_frames, 1, 4, 4))

    for num_frames in (5, 6):
        counts = count_clips("boats", tmp_path, num_frames=num_frames)
        assert counts == {"train": (2, 7), "val": (2, None), "test": (2, None)}
    assert count_clips("boats", tmp_path, num_frames=4)["train"] == (2, None)


def show(*arguments: object) -> str:
    return CliRunner().invoke(main, ["data", "show", *map(str, arguments)]).output


def test_show_draws_clips_from_first_to_last(tmp_path: Path) -> None:
    @register_dataset("fog")
    def fog(root: Path, split: str, *, num_clips: int, num_frames: int, seed: int, number: int = 10) -> list[Tensor]:
        first = 100 if split == "val" else 0
        return [torch.full((num_frames, 1, 64, 64), (first + index) / 255) for index in range(number)]

    common = ["fog", "--data-dir", tmp_path, "--num-frames", 3]
    file = tmp_path / "new" / "fog.png"
    for split, first in ((["--split", "val"], 100), ([], 0)):
        assert show(*common, *split, "--out", file) == f"{file}: 4 of 10 clips of fog, {'val' if split else 'train'}\n"
        with Image.open(file) as image:
            pixels = np.asarray(image)[..., 0]
        frames = [pixels[-64 - below * 66, -64 - left * 66] for below in (3, 2, 1, 0) for left in (2, 1, 0)]
        assert frames == [first + index for index in (0, 3, 6, 9) for _ in range(3)]
    assert "2 of 2 clips of fog" in show(*common, "--data-arg", "number=2", "--out", file)
    assert "no option rain" in show(*common, "--data-arg", "rain=2", "--out", file)
    assert "Error: --out is a .png, got" in show(*common, "--out", tmp_path / "fog.mp4")
    assert f"no folder {tmp_path / 'none'}" in show(
        "clips", "--data-dir", tmp_path / "none", "--num-frames", 3, "--out", file
    )
