from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from plasm.data import create_dataset, list_datasets, register_dataset
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
