# CAIT on the digits classifier: tokens are merged and channels pruned in one
# run, down to half the MACs. From the trained dense model:
#   tools/train.py configs/imagenet/pretrain_vit_micro_digits.py
_base_ = './pretrain_vit_micro_digits.py'

model = dict(
    backbone=dict(
        token_merging=dict(layers=(4, 7)),
        compactors=True,
        checkpoint='work_dirs/pretrain_vit_micro_digits/epoch_45.pth',
    ),
)

# A run this short needs masked columns to vanish within some hundred steps:
# a larger learning rate and a shorter memory for the compactors.
optim_wrapper = dict(
    constructor='ViTOptimWrapperConstructor',
    optimizer=dict(lr=5e-4),
    paramwise_cfg=dict(
        _delete_=True, compactors=dict(lr=1e-2, betas=(0.9, 0.999))
    ),
)
custom_hooks = [
    dict(
        type='CDCPHook',
        target=0.5,
        num_classes=10,
        warmup_epochs=2,
        settle_epochs=15,
        increment=0.01,
        interval=10,
        rules=dict(divisor=8, min_mlp_dim=32),
        clear_moments=True,
        report_interval=220,
    ),
]
