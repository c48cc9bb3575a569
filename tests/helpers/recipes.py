"""The configs of the repository, alone and with another backbone."""

import re
from fnmatch import fnmatch
from functools import cache

import numpy as np
from documents import ROOT
from mmengine.registry import init_default_scope

from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.channels import Kinds
from mmvitcompress.engine.config import read_config

CONFIGS = ROOT / 'configs'
BACKBONES = sorted(
    path.stem for path in (CONFIGS / '_base_/backbones').glob('*.py')
)
FILES = sorted(
    str(path.relative_to(CONFIGS).with_suffix(''))
    for path in (*CONFIGS.glob('*.py'), *CONFIGS.glob('imagenet/*.py'))
)
NAME = re.compile(r'(\w+?)_(dense|atme|cait|cdcp|lifeslim)_(\w+_[tsb])_(\w+)')
DETECTORS = (
    *('mask_rcnn_*', 'cascade_mask_rcnn_*', 'mask2former_inst_*'),
    *('mask2former_*_coco', 'mask2former_*_nuclei'),
)


def kind_of(name):
    """What a config trains: a classifier, detector or segmentor."""
    if name.startswith('imagenet/'):
        return 'classifier'
    found = any(fnmatch(name, pattern) for pattern in DETECTORS)
    return 'detector' if found else 'segmentor'


def combined():
    """Names of what ``--backbone`` makes of the controls.

    They are those of configs, <head>_<method>_<backbone>_<data>.
    """
    for name in FILES:
        parts = NAME.fullmatch(name)
        if not parts or parts[2] != 'dense' or parts[4] == 'folder':
            continue
        for backbone in BACKBONES:
            method, _, size = backbone.partition('_')
            made = f'{parts[1]}_{method}_{size}_{parts[4]}'
            if size == parts[3] and made not in FILES:
                yield made


def source_of(name):
    """A config's file, and the backbone to put into it, or None."""
    if name in FILES:
        return f'configs/{name}.py', None
    head, method, size, data = NAME.fullmatch(name).groups()
    return f'configs/{head}_dense_{size}_{data}.py', f'{method}_{size}'


def read(name):
    """A config by its name, its scope set."""
    path, backbone = source_of(name)
    cfg = read_config(str(ROOT / path), None, backbone)
    init_default_scope(cfg.default_scope)
    return cfg


@cache
def backbone_of(name):
    """What a config says of its backbone; not to be changed."""
    return read(name).model.backbone


def arch_of(backbone):
    """The arch that a backbone's settings amount to."""
    kinds = ('token_merging', 'patch_slimming')
    own = {kind: backbone[kind] for kind in kinds if backbone.get(kind)}
    return get_arch(backbone.arch).replace(**own)


def random_scores(arch, seed):
    """Scores of all channels that prune every block alike."""
    rng = np.random.default_rng(seed)
    heads = [arch.num_heads] * len(arch.qk_dims)
    if hasattr(arch, 'depths'):
        heads = np.repeat(arch.num_heads, arch.depths)
    return [
        Kinds(
            *(rng.random((h, width)) for width in (qk, qk, v)),
            rng.random((1, mlp)),
        )
        for h, qk, v, mlp in zip(
            heads, arch.qk_dims, arch.v_dims, arch.mlp_dims
        )
    ]


ALL = [*FILES, *combined()]


def named(kind, *patterns):
    """Names of one kind, and of any of some patterns."""
    return [
        name
        for name in ALL
        if kind_of(name) == kind
        and any(fnmatch(name, pattern) for pattern in patterns or '*')
    ]
