# EViT: in each of three blocks DeiT-Small keeps 70 % of its patches, to which
# the rate falls from epoch 10 to 110.
_base_ = './dense_deit_s_in1k.py'

model = dict(
    backbone=dict(
        token_reorganization=dict(layers=(4, 7, 10), keep_rate=0.7),
    ),
)
custom_hooks = [dict(type='KeepRateHook', begin=1 / 30, end=11 / 30)]
