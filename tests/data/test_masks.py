import torch

from plasm.data import pixel_mask


def test_a_mask_depends_on_the_clip_and_not_on_its_batch() -> None:
    index = torch.tensor([3, 9, 4])
    together = pixel_mask(index, 5, 16, 12, 0.75, seed=2, epoch=7)
    assert together.shape == (15, 1, 16, 12)
    alone = torch.cat([pixel_mask(i[None], 5, 16, 12, 0.75, seed=2, epoch=7) for i in index])
    assert torch.equal(together, alone)
    assert (~together).sum((1, 2, 3)).tolist() == [144] * 15
    assert len(together.flatten(1).unique(dim=0)) == 15


def test_masks_differ_by_seed_and_epoch() -> None:
    index = torch.tensor([0])
    masks = [pixel_mask(index, 1, 16, 16, 0.5, seed=s, epoch=e) for s, e in ((0, 0), (0, 1), (1, 0))]
    assert len(torch.cat(masks).flatten(1).unique(dim=0)) == 3


def test_patches() -> None:
    mask = pixel_mask(torch.tensor([0]), 2, 8, 8, 0.5, patch_size=4)
    blocks = mask.unflatten(2, (2, 4)).unflatten(4, (2, 4))
    assert (blocks == blocks[:, :, :, :1, :, :1]).all()
    assert (~mask).sum((1, 2, 3)).tolist() == [32, 32]
