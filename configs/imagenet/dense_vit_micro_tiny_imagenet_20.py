# The small ViT of pretrain_vit_micro_tiny_imagenet_20.py, fine-tuned as long
# as its compressed versions and with the same teacher, itself: the control.
_base_ = [
    '../_base_/datasets/tiny_imagenet_20.py',
    '../_base_/default_runtime_cls.py',
]
work_dir = 'work_dirs/pretrain_vit_micro_tiny_imagenet_20'
backbone = dict(
    type='CompressedViT',
    arch='vit_micro',
    img_size=64,
    checkpoint=f'{work_dir}/epoch_40.pth',
)
del work_dir

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='MixupPreprocessor',
        mixup_alpha=0.8,
        cutmix_alpha=1.0,
        label_smoothing=0.1,
        num_classes=20,
    ),
    backbone=backbone,
    num_classes=20,
    distillation=dict(
        alpha=0.25,
        teacher=dict(
            type='ImageClassifier', backbone=backbone, num_classes=20
        ),
    ),
)

epochs = 8  # of 70 iterations
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='ViTOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05),
)
param_scheduler = [
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
default_hooks = dict(checkpoint=dict(interval=2, max_keep_ckpts=1))
randomness = dict(seed=0)
