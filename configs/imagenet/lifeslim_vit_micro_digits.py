# Life regression on the digits classifier: 70 % of the patches stay at each of
# two layers.
_base_ = './pretrain_vit_micro_digits.py'

model = dict(
    backbone=dict(
        soft_slimming=True,
        patch_slimming=dict(base_layer=3, layers=(3, 5), keep_rate=0.7),
        checkpoint='work_dirs/pretrain_vit_micro_digits/epoch_45.pth',
    ),
    label_smoothing=0.0,  # plain cross-entropy (Eq. 8)
)
# the paper's 1e-3 is for batches of 128
optim_wrapper = dict(optimizer=dict(lr=5e-4))
custom_hooks = [dict(type='LifeRegressionHook', predictor_epochs=5)]
find_unused_parameters = True  # each stage freezes what the other trains
