# Life regression: 70 % of DeiT-Small's patches stay at each of three layers.
_base_ = [
    '../_base_/models/classifier_deit_s.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/life_regression_2e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        soft_slimming=True,
        patch_slimming=dict(base_layer=4, layers=(4, 7, 10), keep_rate=0.7),
    ),
)
