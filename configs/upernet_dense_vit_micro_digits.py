# UperNet finds handwritten digits in scenes made by tools/make_digits.py: two
# minutes on a laptop, from random weights. The control.
_base_ = [
    './_base_/models/upernet_deit_s.py',
    './_base_/datasets/digits_scenes.py',
    './_base_/schedules/adamw_160k.py',
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
    neck=[
        dict(type='mmvitcompress.UnmergeUpsample', mode='nearest'),
        dict(
            type='Feature2Pyramid',
            embed_dim=96,
            rescales=[4, 2, 1, 0.5],
            norm_cfg=norm_cfg,
        ),
    ],
    decode_head=dict(in_channels=[96] * 4, channels=32, num_classes=2),
    auxiliary_head=dict(in_channels=96, channels=32, num_classes=2),
)

# digits are to be found, not to be told apart
ink = dict(dataset=dict(type='mmvitcompress.DigitInkDataset'))
train_dataloader = ink
val_dataloader = ink
test_dataloader = ink

# from random weights: a higher rate, and 200 x 16 / 400 images = 8 epochs
optim_wrapper = dict(optimizer=dict(lr=1e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=30, by_epoch=False),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        begin=30,
        end=200,
        by_epoch=False,
    ),
]
train_cfg = dict(max_iters=200, val_interval=100)
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(interval=100, max_keep_ckpts=1)
)
auto_scale_lr = dict(base_batch_size=16)
