# Life regression: 70 % of ViT-Tiny's patches stay at each of three layers.
# The loss is plain cross-entropy (Eq. 8): no teacher, no mixup, no smoothing.
_base_ = [
    '../_base_/datasets/imagenet_half.py',
    '../_base_/schedules/life_regression_2e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='CompressedViT',
        arch='vit_tiny',
        soft_slimming=True,
        patch_slimming=dict(base_layer=4, layers=(4, 7, 10), keep_rate=0.7),
        checkpoint='checkpoints/vit_tiny_augreg_in21k_ft_in1k.pth',
    ),
    num_classes=1000,
)

train_dataloader = dict(batch_size=128)  # of all GPUs together
