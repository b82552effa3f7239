# %% [markdown]
# # Use one layer in your own net
#
# Every layer of plasm is an ordinary `nn.Module` that can be taken alone. Here Pair-wise Layer Attention becomes the
# skip connection of a small U-Net.

# %%
import torch
from torch import nn

from plasm.layers import PairwiseLayerAttention


class TinyUNet(nn.Module):
    """Denoise images: the decoder asks, channel group by channel group, how well encoder and decoder agree."""

    def __init__(self, dim=16):
        super().__init__()
        self.stem = nn.Conv2d(1, dim, 3, padding=1)
        self.down = nn.Sequential(nn.Conv2d(dim, dim, 3, stride=2, padding=1), nn.GELU())
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(dim, dim, 3, padding=1), nn.GELU())
        self.attend = PairwiseLayerAttention(dim, num_heads=4)
        self.head = nn.Conv2d(dim, 1, 3, padding=1)

    def forward(self, x):
        low = self.stem(x)
        high = self.up(self.down(low))
        return self.head(high + self.attend(low, high))


net = TinyUNet()
net(torch.rand(2, 1, 32, 32)).shape

# %% [markdown]
# It trains as any net does.

# %%
torch.manual_seed(0)
clean = (torch.rand(32, 1, 8, 8) > 0.5).float().repeat_interleave(4, 2).repeat_interleave(4, 3)
noisy = clean + 0.5 * torch.randn_like(clean)
optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
for step in range(20):
    index = torch.randint(32, (8,))
    loss = nn.functional.mse_loss(net(noisy[index]), clean[index])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 9:
        print(step + 1, round(loss.item(), 3))

# %% [markdown]
# The sparse layers take a mask of visible pixels and compute those alone, with the parameters of the dense layers:

# %%
from plasm.layers import SparseEncoder, random_pixel_mask

encoder = SparseEncoder(in_chans=1, dim=16, depth=4)
frames = torch.rand(8, 1, 64, 64)
visible = random_pixel_mask(8, 64, 64, mask_ratio=0.96)
encoder(frames, visible).shape, encoder(frames).shape
