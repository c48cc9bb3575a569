"""``--cfg-options`` of what a config only names."""

import pytest

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.engine.config import read_config
from mmvitcompress.errors import ConfigError
from mmvitcompress.registry import MODELS

CONFIG = "model = dict(backbone=dict(type='CompressedViT', arch={!r}))"
KEY = 'model.backbone.arch'


def read(tmp_path, arch, **options):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(arch))
    return read_config(str(path), options).model.backbone


@pytest.mark.parametrize(
    'options',
    [
        {f'{KEY}.embed_dim': 96, f'{KEY}.depth': 6},
        {KEY: dict(embed_dim=96, depth=6)},
    ],
)
def test_values_of_a_named_arch(options, tmp_path):
    expected = ViTArch(embed_dim=96, depth=6, num_heads=3)
    get_arch('deit_tiny').save(tmp_path / 'tiny.json')
    for named in ('deit_tiny', str(tmp_path / 'tiny.json')):
        backbone = read(tmp_path, named, **options)
        assert MODELS.build(backbone).arch == expected


def test_another_name_or_what_is_no_arch(tmp_path):
    assert read(tmp_path, 'deit_tiny', **{KEY: 'deit_base'}).arch == (
        'deit_base'
    )
    with pytest.raises(ConfigError, match='cannot be merged'):
        read(tmp_path, 'resnet', **{f'{KEY}.depth': 6})
