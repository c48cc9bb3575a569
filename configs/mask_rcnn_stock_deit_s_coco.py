# Mask R-CNN, DeiT-Small without compression, with MMDetection's own pyramid
# and head: what the others' speed is measured against. Same weights and
# outputs as mask_rcnn_dense_deit_s_coco.py.
_base_ = './mask_rcnn_dense_deit_s_coco.py'
model = dict(
    backbone=dict(restore=True),
    neck=[
        dict(
            type='mmseg.Feature2Pyramid',
            embed_dim=384,
            rescales=[4, 2, 1, 0.5],
            norm_cfg=dict(type='SyncBN', requires_grad=True),
        ),
        dict(
            type='FPN',
            in_channels=[384, 384, 384, 384],
            out_channels=256,
            num_outs=5,
        ),
    ],
)
