# Life regression: 70 % of the patches stay at each of three layers. Loss and
# length are those of the other methods, to be compared with them; the paper
# trains by plain cross-entropy for two epochs.
_base_ = './dense_vit_micro_tiny_imagenet_20.py'

model = dict(
    backbone=dict(
        soft_slimming=True,
        patch_slimming=dict(base_layer=2, layers=(2, 4, 6), keep_rate=0.7),
    ),
)
optim_wrapper = dict(paramwise_cfg=dict(predictor=dict(lr=1e-3)))
custom_hooks = [dict(type='LifeRegressionHook', predictor_epochs=1)]
find_unused_parameters = True  # each stage freezes what the other trains
