# A small ViT learns 20 classes of Tiny ImageNet from random weights: the model
# that the compression runs at this scale start from.
_base_ = [
    '../_base_/datasets/tiny_imagenet_20.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(type='CompressedViT', arch='vit_micro', img_size=64),
    num_classes=20,
    label_smoothing=0.1,
)

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
epochs = 40
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-2,
        begin=0,
        end=3,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        begin=3,
        end=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=5)
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=1))
randomness = dict(seed=0)
