# DINOv2's ViT-S fine-tuned on 20 classes of Tiny ImageNet, 64x64 photos
# enlarged to 112x112 (8 x 8 patches), without compression: the control.
_base_ = [
    '../_base_/datasets/tiny_imagenet_20.py',
    '../_base_/default_runtime_cls.py',
]
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='MixupPreprocessor',
        mixup_alpha=0.2,
        label_smoothing=0.1,
        num_classes=20,
    ),
    backbone=dict(
        type='CompressedViT',
        arch='dinov2_small',
        img_size=112,
        checkpoint='checkpoints/dinov2_small.pth',
    ),
    num_classes=20,
)
train_dataloader = dict(
    batch_size=64, dataset=dict(transform=dict(input_size=112))
)
val_dataloader = dict(
    batch_size=128, dataset=dict(transform=dict(input_size=112))
)
test_dataloader = val_dataloader

epochs = 2  # of 141 iterations
optim_wrapper = dict(
    type='BFloat16OptimWrapper',
    constructor='ViTOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=3e-4, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay=0.75),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=20, by_epoch=False),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        begin=0,
        end=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=1))
