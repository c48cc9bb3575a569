# Life regression: 70 % of ViT-Tiny's patches stay at each of three layers.
_base_ = [
    '../_base_/models/classifier_deit_s.py',
    '../_base_/datasets/imagenet_half.py',
    '../_base_/schedules/life_regression_2e.py',
    '../_base_/default_runtime_cls.py',
]
checkpoint = 'checkpoints/vit_tiny_augreg_in21k_ft_in1k.pth'
backbone = dict(arch='vit_tiny', checkpoint=checkpoint)

model = dict(
    backbone=dict(
        soft_slimming=True,
        patch_slimming=dict(base_layer=4, layers=(4, 7, 10), keep_rate=0.7),
        **backbone,
    ),
    distillation=dict(alpha=0.1, teacher=dict(backbone=backbone)),
)
