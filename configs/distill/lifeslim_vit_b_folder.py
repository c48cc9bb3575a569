# Life regression without labels: the predictor learns for 1 000 iterations,
# everything else for the rest.
_base_ = [
    '../_base_/models/distill_vit_b.py',
    '../_base_/schedules/distill_4k.py',
]
model = dict(
    backbone=dict(
        soft_slimming=True,
        patch_slimming=dict(base_layer=4, layers=(4, 7, 10), keep_rate=0.7),
    ),
)
optim_wrapper = dict(paramwise_cfg=dict(predictor=dict(lr=1e-3)))
custom_hooks = [dict(type='LifeRegressionHook', predictor_iters=1000)]
find_unused_parameters = True  # each stage freezes what the other trains
