# A small ViT learns scikit-learn's handwritten digits (tools/make_digits.py)
# in two minutes on a laptop: what ImageNet is to the other configs.
_base_ = '../_base_/default_runtime_cls.py'
data_root = '{{$DIGITS_ROOT:data/digits}}/classification'

model = dict(
    type='ImageClassifier',
    backbone=dict(type='CompressedViT', arch='vit_micro', img_size=32),
    num_classes=10,
    label_smoothing=0.1,
)

# no flips: a mirrored 2 is no 2
train_dataloader = dict(
    batch_size=64,  # an epoch is 1438 / 64 = 22 iterations
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='TimmDataset',
        data_root=data_root,
        split='train',
        transform=dict(
            input_size=32,
            is_training=True,
            scale=(0.6, 1.0),
            hflip=0.0,
            color_jitter=0.4,
        ),
    ),
    collate_fn=dict(type='default_collate'),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='TimmDataset',
        data_root=data_root,
        split='val',
        transform=dict(input_size=32, crop_pct=1.0),
    ),
    collate_fn=dict(type='default_collate'),
)
test_dataloader = val_dataloader

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        begin=0,
        end=3,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        begin=3,
        end=45,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=45, val_interval=15)
default_hooks = dict(
    logger=dict(interval=22), checkpoint=dict(interval=15, max_keep_ckpts=1)
)
