# CDCP on the digits classifier: 40 % of the MACs by pruned channels. From the
# trained dense model of pretrain_vit_micro_digits.py.
_base_ = './pretrain_vit_micro_digits.py'

model = dict(
    backbone=dict(
        compactors=True,
        checkpoint='work_dirs/pretrain_vit_micro_digits/epoch_45.pth',
    ),
)

# in a run this short masked columns have to be helped to vanish (shrink)
optim_wrapper = dict(
    constructor='ViTOptimWrapperConstructor',
    optimizer=dict(lr=5e-4),
    paramwise_cfg=dict(_delete_=True),
)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        begin=0,
        end=45,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
custom_hooks = [
    dict(
        type='CDCPHook',
        target=0.4,
        num_classes=10,
        warmup_epochs=2,
        increment=0.02,
        interval=10,
        settle_epochs=10,
        rules=dict(divisor=8, min_mlp_dim=32),
        shrink=0.02,
        report_interval=220,
    ),
]
