"""Which values each parameter of a compressed ViT is trained with."""

import pytest
import torch
from mmengine.optim import OptimWrapper

from mmvitcompress.channels import find_compactors
from mmvitcompress.engine.optimizers import (
    ViTOptimWrapperConstructor,
    compactor_groups,
)
from mmvitcompress.errors import ConfigError
from mmvitcompress.models import CompressedViT, ImageClassifier

ARCH = dict(embed_dim=24, depth=2, num_heads=3, patch_size=8, img_size=32)


def test_constructor_knows_what_is_not_decayed():
    model = ImageClassifier(
        dict(
            type='mmvitcompress.CompressedViT',
            arch=dict(**ARCH, token_merging=dict(layers=(2,))),
            compactors=True,
        ),
        num_classes=3,
    )
    build = ViTOptimWrapperConstructor(
        dict(optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05)),
        dict(
            layer_decay=0.5,
            compactors=dict(lr=0.3),
            custom_keys={'head': dict(lr_mult=10.0)},
        ),
    )
    optimizer = build(model).optimizer
    names = {id(p): name for name, p in model.named_parameters()}
    values = {
        names[id(param)]: (
            group['lr'],
            group['weight_decay'],
            group['betas'],
        )
        for group in optimizer.param_groups
        for param in group['params']
    }
    assert len(values) == len(names)
    usual, cdcp = (0.9, 0.999), (0.99, 0.999)
    for name, expected in {
        'head.fc.weight': (10.0, 0.05, usual),
        'backbone.norm.weight': (1.0, 0.0, usual),
        'backbone.blocks.1.mlp.fc2.weight': (0.5, 0.05, usual),
        'backbone.token_merging.1.fuse.weight': (0.5, 0.05, usual),
        'backbone.blocks.0.mlp.fc2.bias': (0.25, 0.0, usual),
        'backbone.pos_embed': (0.125, 0.0, usual),
        'backbone.cls_token': (0.125, 0.0, usual),
        'backbone.blocks.0.attn.qkv.compactors.q.weight': (0.3, 0.0, cdcp),
    }.items():
        assert values[name] == expected, name
    # equal values share a group
    assert len(optimizer.param_groups) == len(set(values.values()))


@pytest.mark.parametrize(
    ('optimizer', 'paramwise', 'message'),
    [
        (dict(type='SGD', lr=0.1), {}, "SGD has no 'betas'"),
        (dict(type='AdamW', lr=0.1), dict(layer_decay=2.0), 'layer_decay'),
        (dict(type='AdamW', lr=0.1), dict(norm_decay=0), 'norm_decay'),
    ],
)
def test_constructor_refuses(optimizer, paramwise, message):
    model = torch.nn.Module()
    model.backbone = CompressedViT(
        arch=ARCH, compactors=True, out_indices=[-1]
    )
    with pytest.raises(ConfigError, match=message):
        ViTOptimWrapperConstructor(dict(optimizer=optimizer), paramwise)(model)


@pytest.fixture
def split():
    """A model's parameters: compactors, and all others."""
    model = CompressedViT(arch=ARCH, compactors=True)
    compactors = find_compactors(model)
    ours = [c.weight for block in compactors for c in block]
    others = [p for p in model.parameters() if not any(p is o for o in ours)]
    return compactors, ours, others


def test_groups_of_compactors(split):
    compactors, ours, others = split
    half = len(ours) // 2
    optimizer = torch.optim.AdamW(
        [dict(params=p) for p in (ours[:half], others, ours[half:])],
        lr=0.1,
        weight_decay=0.0,
    )
    first, decayed, last = optimizer.param_groups
    decayed['weight_decay'] = 0.05  # none of the compactors'
    groups = compactor_groups(OptimWrapper(optimizer), compactors)
    assert [id(group) for group in groups] == [id(first), id(last)]


def test_optimizers_that_do_not_suit_compactors(split):
    compactors, ours, others = split
    for params, values, message in (
        (others, {}, f'has 0 of {len(ours)} compactors'),
        (ours[1:], {}, f'has {len(ours) - 1} of {len(ours)} compactors'),
        (ours, dict(weight_decay=0.1), 'weight_decay is 0.1'),
    ):
        optimizer = torch.optim.SGD(params, lr=0.1, **values)
        with pytest.raises(ConfigError, match=message):
            compactor_groups(OptimWrapper(optimizer), compactors)


def test_fused_optimizers_see_scaled_gradients(split):
    compactors, ours, _ = split
    optimizer = torch.optim.SGD(ours, lr=0.1)
    plain = OptimWrapper(optimizer)
    scaled = OptimWrapper(optimizer)
    scaled.loss_scaler = torch.amp.GradScaler('cpu')
    assert len(compactor_groups(scaled, compactors)) == 1
    optimizer.param_groups[0]['fused'] = True
    assert len(compactor_groups(plain, compactors)) == 1
    with pytest.raises(ConfigError, match='fused=False'):
        compactor_groups(scaled, compactors)
