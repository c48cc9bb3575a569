"""Values against annotations, and what types of ours say at the door."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from torch import nn

from mmvitcompress.errors import ConfigError
from mmvitcompress.registry import DATASETS, HOOKS, MODELS, check_config
from mmvitcompress.utils.annotations import described, fits

NAN, INF = float('nan'), float('inf')


@pytest.mark.parametrize(
    ('hint', 'right', 'wrong'),
    [
        (int, [0, -3, np.int64(2)], [True, 1.0, '1', None, NAN]),
        (float, [0, 1.5, np.float32(2)], [True, '1.5', NAN, INF, None]),
        (bool, [True, False], [0, 1, 'no', None]),
        (str, ['', 'x'], [b'x', 1, Path('x')]),
        (str | Path | None, ['x', Path('x'), None], [1, ['x']]),
        (Sequence[int], [[], [1], (1, 2), range(3)], ['12', 1, [1.5], {}]),
        (int | Sequence[int], [1, [1, 2]], [1.5, [None]]),
        (tuple[int, int], [(1, 2), [1, 2]], [(1,), (1, 2, 3), (1, 'x')]),
        (tuple[float, ...], [(), (1, 2.5)], [('x',), 1]),
        (list[dict] | None, [None, [{}]], [{}, [1]]),
        (dict, [{}], [[], None]),
        (Mapping[str, int], [{}, {'a': 'not looked at'}], [[('a', 1)]]),
        (Sequence[Sequence[int]], [[(1, 2)]], [[1, 2]]),
        (Literal['a', 2], ['a', 2], ['b', 3]),
        (Callable[[int], int], [len], ['len']),
        (nn.Module, [nn.Identity()], [nn.Identity]),
        (Any, [None, 1, 'x'], []),
    ],
)
def test_fits(hint, right, wrong):
    for value in right:
        assert fits(value, hint), value
    for value in wrong:
        assert not fits(value, hint), value


def test_described():
    assert described(int | Sequence[int] | None) == (
        'a whole number or a list of a whole number or None'
    )
    assert described(tuple[int, int]) == '(a whole number, a whole number)'
    assert described(dict | None) == 'a dict or None'


ARCH = dict(embed_dim=8, depth=2, num_heads=2, patch_size=4, img_size=8)
VIT = dict(type='CompressedViT', arch=ARCH)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('out_indices', 1.0),
        ('out_indices', 'last'),
        ('frozen_stages', 1.5),
        ('checkpoint', 123),
        ('compactors', 'no'),
        ('with_cp', 1),
        ('drop_path_rate', NAN),
        ('restore', None),
        ('token_merging', 2.5),
        ('arch', [1]),
    ],
)
def test_backbones_name_what_they_are_given(name, value):
    config = VIT | {name: value}
    with pytest.raises(ConfigError, match=rf'^CompressedViT\.{name} must be'):
        MODELS.build(config)
    model = dict(type='ImageClassifier', backbone=config)
    with pytest.raises(ConfigError, match=rf'^model\.backbone\.{name} must'):
        check_config(dict(model=model))


def test_named_forms_speak_for_themselves():
    with pytest.raises(ConfigError, match=r'^ATMEDeiT\.norm_eval must be'):
        MODELS.build(dict(VIT, type='ATMEDeiT', norm_eval='yes'))
    with pytest.raises(ConfigError, match="argument 'in_features'; its"):
        MODELS.build(dict(type='UnmergeUpsample', in_features=3))
    with pytest.raises(ConfigError, match='missing a required argument'):
        MODELS.build(dict(type='UnmergePyramid'))


def test_arguments_that_are_handed_on_are_checked_as_well():
    for name, value in dict(data_prefix=0, ann_file=1, test_mode='no').items():
        config = dict(type='mmvitcompress.FolderDataset', **{name: value})
        with pytest.raises(ConfigError, match=f'^FolderDataset.{name} must'):
            DATASETS.build(config)
    with pytest.raises(ConfigError, match="'x'; its arguments are none"):
        HOOKS.build(dict(type='ArchMetaHook', x=1))


def test_all_of_a_config_is_looked_at():
    right = dict(
        model=dict(type='mmseg.EncoderDecoder', backbone=VIT, neck=None),
        custom_hooks=[dict(type='MeanLossHook', priority='LOW')],
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr='unknown')),
    )
    check_config(right)
    hook = dict(type='mmvitcompress.CDCPHook', target='half')
    with pytest.raises(ConfigError, match=r'^custom_hooks\.1\.target must'):
        check_config(right | dict(custom_hooks=[{}, hook]))
    assert HOOKS.get('CDCPHook').__init__.__wrapped__
    necks = dict(neck=[dict(type='UnmergePyramid', embed_dim='x')])
    with pytest.raises(ConfigError, match=r'^model\.neck\.0\.embed_dim'):
        check_config(dict(model=necks))


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (dict(backbone={}), 'backbone must name its type'),
        (dict(num_classes=-1), 'num_classes must be .* but got -1'),
        (dict(data_preprocessor={}), 'data_preprocessor must name its type'),
        (
            dict(distillation={}),
            r'but got the keys \[\]',
        ),
        (dict(distillation=dict(teacher={})), 'teacher must name its type'),
        (
            dict(distillation=dict(teacher=VIT, alpha=NAN)),
            'alpha must lie in .* nan',
        ),
    ],
)
def test_parts_of_a_classifier(config, message):
    with pytest.raises(ConfigError, match=message):
        MODELS.build(dict(type='ImageClassifier', backbone=VIT) | config)
