# What every semantic head on DeiT-Small shares. The four outputs go through
# the plain-ViT pyramid of XCiT (x4, x2, x1, x1/2), which is built on merged
# tokens and restored last; for a backbone that merges nothing it is
# Feature2Pyramid, so that all variants share this file.
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),
        # whole patches: what is padded is cut off the prediction again
        test_cfg=dict(size_divisor=16),
    ),
    pretrained=None,
    backbone=dict(
        type='mmvitcompress.CompressedViT',
        arch='deit_small',
        img_size=(512, 512),
        out_indices=(2, 5, 8, 11),  # blocks 3, 6, 9 and 12
        drop_path_rate=0.1,
        restore=False,
    ),
    neck=dict(
        type='mmvitcompress.UnmergePyramid',
        embed_dim=384,
        rescales=[4, 2, 1, 0.5],
        norm_cfg=norm_cfg,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
