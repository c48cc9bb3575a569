"""A warning where images are not as the pretrained weights want them."""

import pytest
from mmengine.config import Config

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.checkpoints.file import write_checkpoint
from mmvitcompress.engine.build import build
from mmvitcompress.models import CompressedViT

ARCH = ViTArch(16, 2, 2, patch_size=8, img_size=16)
HALF = [127.5, 127.5, 127.5]


@pytest.mark.parametrize(
    ('noted', 'mean', 'warned'),
    [
        ({}, [123.675, 116.28, 103.53], False),
        (dict(mean=(0.5,) * 3, std=(0.5,) * 3), HALF, False),
        (dict(mean=(0.5,) * 3, std=(0.5,) * 3), [123.675, 116, 103], True),
        (dict(mean=(0.5,) * 3, std=(0.25,) * 3), HALF, True),
        (dict(mean=(0.5,) * 3, std=(0.5,) * 3), None, True),
    ],
)
def test_other_images_are_warned_of(
    noted, mean, warned, tmp_path, monkeypatch
):
    path = str(tmp_path / 'x.pth')
    state = CompressedViT(ARCH, final_norm=True).state_dict()
    write_checkpoint(path, state, ARCH, pretrained_cfg=noted)
    images = dict(type='ImgDataPreprocessor')
    if mean is not None:
        images |= dict(mean=mean, std=HALF, bgr_to_rgb=True)
    backbone = dict(type='CompressedViT', checkpoint=path)
    model = dict(
        type='ImageClassifier',
        backbone=backbone,
        num_classes=2,
        data_preprocessor=images,
    )
    config = Config(dict(default_scope='mmvitcompress', model=model))
    lines = []
    monkeypatch.setattr(
        'mmvitcompress.engine.normalisation.print_log',
        lambda line, *_: lines.append(line),
    )
    build(config, purpose='measure')
    assert len(lines) == warned
    assert all('set mean=[127.5, 127.5, 127.5], std=[' in x for x in lines)
