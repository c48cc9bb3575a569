# %% [markdown]
# # Compress your ViT
#
# From a ViT of timm to one of half the cost, in plain PyTorch: plan, compress,
# fine-tune, save, and use as a backbone. Open this file as a notebook (VS
# Code, PyCharm and Jupytext read its cells), or run it; it takes half a minute
# on one CPU core and downloads nothing, since the ViT is a small one that
# learns scikit-learn's handwritten digits first.

# %%
import time

import timm
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

import mmvitcompress

torch.manual_seed(0)

# %% [markdown]
# ## A ViT to begin with
#
# Yours would be `timm.create_model('deit_small_patch16_224.fb_in1k',
# pretrained=True)`, or simply that name. Whatever timm's `VisionTransformer`
# makes will do: DeiT, ViT, DeiT-III, DINOv2, with registers or without.

# %%
digits = load_digits()
images = torch.from_numpy(digits.images).float()[:, None] / 8 - 1
labels = torch.from_numpy(digits.target)
train, test = slice(0, 1400), slice(1400, None)

vit = timm.create_model(
    'deit_tiny_patch16_224',
    img_size=8,
    patch_size=2,
    in_chans=1,
    num_classes=10,
    embed_dim=48,
    depth=4,
    num_heads=3,
)


def fit(model, epochs, lr):
    """Train on the first 1400 digits."""
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.05)
    steps = epochs * (1400 // 50)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(1400).split(50):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def accuracy(model):
    """Share of the other 397 digits that are told right."""
    right = model.eval()(images[test]).argmax(1) == labels[test]
    return right.float().mean().item()


fit(vit, epochs=16, lr=3e-3)
print(f'ViT: {accuracy(vit):.1%}')

# %% [markdown]
# ## Plan
#
# Half of the MACs are to go, one part by merged tokens, one by narrower
# blocks. The plan says before which blocks to merge, counted from 1, and what
# is left for channels to save.

# %%
plan = mmvitcompress.plan(vit, target=0.5, channels=0.5)
print(f'merge before blocks {plan.layers}, saving {plan.token_reduction:.1%};')
print(f'channels are to save {plan.channel_reduction:.1%}')

# %% [markdown]
# ## Compress
#
# With nothing asked for, `compress` returns the ViT itself in other clothes.
# With the plan it merges tokens (the new layers start as means of neighbours)
# and removes the channels of the smallest weights. Both are a start for
# fine-tuning. For the best result train with CDCP, which prunes while the
# model learns: see `configs/imagenet/cait_deit_s_in1k.py`.

# %%
same = mmvitcompress.compress(vit)
with torch.no_grad():
    gap = (same.eval()(images[test]) - vit.eval()(images[test])).abs().max()
print(f'nothing asked for: logits differ by {gap:.1e} at most')
assert gap < 1e-4

small = mmvitcompress.compress(vit, **plan.arguments())
saved = 1 - small.macs() / same.macs()
print(f'MACs: {same.macs() / 1e6:.2f} M → {small.macs() / 1e6:.2f} M')
assert saved >= 0.5
print(f'as cut: {accuracy(small):.1%}')

fit(small, epochs=8, lr=2e-3)
print(f'fine-tuned: {accuracy(small):.1%}')

# %% [markdown]
# ## What was gained


# %%
@torch.no_grad()
def milliseconds(model, repeats=10):
    """Median time for the 397 digits."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        model(images[test])
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2] * 1e3


before, after = milliseconds(vit.eval()), milliseconds(small.eval())
print(f'{before:.0f} ms → {after:.0f} ms, ×{before / after:.2f}')

# %% [markdown]
# ## Feature maps for any head
#
# Maps come back at full resolution, whatever was merged before.

# %%
for index, features in enumerate(
    small.forward_intermediates(images[:2], indices=3)[1], start=2
):
    print(f'block {index}: {tuple(features.shape)}')

# %% [markdown]
# ## Save and load
#
# One file carries weights and shape. `load` reads it, and so does the
# backbone of any config of MMSegmentation or MMDetection:
# `backbone=dict(type='mmvitcompress.CompressedViT', checkpoint='small.pth')`.

# %%
import tempfile  # noqa: E402

from mmvitcompress.models import CompressedViT  # noqa: E402

with tempfile.TemporaryDirectory() as folder:
    mmvitcompress.save(small, f'{folder}/small.pth')
    again = mmvitcompress.load(f'{folder}/small.pth')
    backbone = CompressedViT(checkpoint=f'{folder}/small.pth').eval()
with torch.no_grad():
    assert torch.equal(again(images[test]), small(images[test]))
    maps = backbone(images[:2])
print(f'as a backbone: {[tuple(each.shape) for each in maps]}')
