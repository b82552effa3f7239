from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

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
def test_counts_are_near_the_papers_where_the_full_data_is(name: str, num_frames: int) -> None:
    """Near, since the paper does not say how its clips were cut; docs/data says how ours are."""
    root = Path(__file__).parents[3] / "shared" / "data" / name
    if not root.is_dir():
        pytest.skip(f"needs the whole of {name} in ../shared/data/{name}")
    counts = count_clips(name, root, num_frames=num_frames)
    training = counts["train"][0] + counts["val"][0]
    for number, published in ((training, counts["train"][1]), (counts["test"][0], counts["test"][1])):
        print(f"{name}: {number} clips here, {published} in the paper")
        assert number == pytest.approx(published, rel=0.02)
