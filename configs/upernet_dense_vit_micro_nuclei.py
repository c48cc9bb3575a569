# UperNet tells cell nuclei from background, from random weights: 200
# iterations x 16 crops / 287 images = 11 epochs. The control.
_base_ = [
    './_base_/models/upernet_deit_s.py',
    './_base_/datasets/nuclei_maps.py',
    './_base_/schedules/digits_200.py',
    './_base_/default_runtime.py',
]
crop_size = (128, 128)
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        arch='vit_micro',
        img_size=crop_size,
        out_indices=(1, 3, 5, 7),
        drop_path_rate=0.0,
    ),
    neck=dict(
        _delete_=True,
        type='mmvitcompress.UnmergePyramid',
        embed_dim=96,
        norm_cfg=norm_cfg,
    ),
    decode_head=dict(in_channels=[96] * 4, channels=32, num_classes=2),
    auxiliary_head=dict(in_channels=96, channels=32, num_classes=2),
)
