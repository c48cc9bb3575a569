"""Arch JSONs that people and disks have spoilt."""

import json

import numpy as np
import pytest
import torch
from malformed import accepted, cases, damaged, in_turn, odd, told

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.zoo import ARCHS, get_arch
from mmvitcompress.models.swin import Swin
from mmvitcompress.models.vit import ViT

pytestmark = pytest.mark.slow

MICRO = dict(embed_dim=24, depth=4, num_heads=3, patch_size=8, img_size=32)
CONTENTS = (
    MICRO,
    dict(base='vit_micro', depth=3, token_merging=[2, 3]),
    ViTArch(**MICRO, token_merging=[2, 3]).to_dict(),
    ViTArch(**MICRO, qk_dims=[8, 4, 4, 2], window_size=2).to_dict(),
    ViTArch(
        **MICRO, patch_slimming=dict(base_layer=1, layers=[2, 3])
    ).to_dict(),
    ARCHS['lvvit_small'].to_dict(),
    dict(
        family='swin',
        embed_dim=12,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=2,
        img_size=32,
    ),
)


def spoilt(rng, content):
    """A text, and what a message may name of it."""
    path = 'arch.json'
    if rng.random() < 0.2:
        text = json.dumps(content).encode()
        return damaged(rng, text), [path, 'arch', 'base']
    key = rng.choice([*content, 'depth', 'patch_slimming', 'no_such_key'])
    if rng.random() < 0.15 and key in content:
        changed = {k: v for k, v in content.items() if k != key}
        words = [key, path, 'arch']
    else:
        value = odd(rng, content.get(key))
        value = json.loads(json.dumps(value, default=str))
        changed = content | {key: value}
        words = told(value) + ([key] if key not in content else [])
    return json.dumps(changed).encode(), words


@cases('archs')
def test_an_arch_is_right_or_refused(rng, tmp_path, capsys):
    content = in_turn(rng, CONTENTS)
    path = tmp_path / 'arch.json'
    text, words = spoilt(rng, content)
    path.write_bytes(text)
    found = []

    def main():
        arch = get_arch(str(path))
        net = ViT(arch) if isinstance(arch, ViTArch) else Swin(arch)
        found.append((arch, net.eval()))

    if accepted(main, words, capsys):
        check(*found[0])


@torch.no_grad()
def check(arch, net):
    """It is what it says, it costs what it says, and it runs."""
    content = json.loads(json.dumps(arch.to_dict()))
    assert get_arch(content) == arch
    assert sum(p.numel() for p in net.parameters()) == arch.params()
    height, width = (min(side, 48) for side in arch.img_size)
    height, width = (max(s, arch.patch_size) for s in (height, width))
    for map_ in net(torch.rand(1, arch.in_chans, height, width), [0]):
        assert np.isfinite(map_[0].numpy()).all()
