"""Mask2Former in sliding windows, which fails with mmseg's own head."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from small_heads import mask2former_head

CLASSES, SIDE = 3, 64


class Maps(torch.nn.Module):
    """Maps of four strides from an image, without any weights."""

    def forward(self, image):
        grey = image.mean(1, keepdim=True)
        pool = torch.nn.functional.avg_pool2d
        return tuple(
            torch.cat([pool(grey, s), pool(grey.square(), s)], 1)
            for s in (4, 8, 16, 32)
        )


def build(mode):
    init_default_scope('mmseg')
    torch.manual_seed(0)
    head = mask2former_head([2] * 4, CLASSES, num_classes=CLASSES)
    head['type'] = 'mmvitcompress.WindowMask2FormerHead'
    test_cfg = dict(mode=mode, crop_size=(SIDE, SIDE), stride=(SIDE, SIDE))
    model = MODELS.build(
        ConfigDict(
            type='EncoderDecoder',
            backbone=dict(type=Maps),
            decode_head=head,
            test_cfg=test_cfg,
        )
    )
    return model.eval()


@pytest.mark.parametrize('padding', [0, 32])
def test_windows_are_what_they_are_alone(padding):
    slide, whole = build('slide'), build('whole')
    whole.load_state_dict(slide.state_dict())
    images = torch.randn(2, 3, SIDE, 2 * SIDE)
    shape = (SIDE, 2 * SIDE - padding)  # of the image before padding
    metas = [
        dict(img_shape=shape, ori_shape=shape, pad_shape=(SIDE, 2 * SIDE))
        for _ in range(2)
    ]
    alone = dict(img_shape=(SIDE, SIDE), pad_shape=(SIDE, SIDE))
    with torch.no_grad():
        found = slide.inference(images, metas)
        halves = [
            whole.inference(half, [dict(alone, ori_shape=(SIDE, SIDE))] * 2)
            for half in images.split(SIDE, 3)
        ]
    assert found.shape == (2, CLASSES, SIDE, 2 * SIDE)
    assert torch.equal(found, torch.cat(halves, 3))
