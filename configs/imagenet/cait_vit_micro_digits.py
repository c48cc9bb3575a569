# CAIT on the digits classifier: tokens are merged and channels pruned in one
# run, down to half the MACs.
_base_ = './cdcp_vit_micro_digits.py'

model = dict(backbone=dict(token_merging=dict(layers=(4, 7))))
custom_hooks = [
    dict(
        type='CDCPHook',
        target=0.5,
        num_classes=10,
        warmup_epochs=2,
        increment=0.01,
        interval=10,
        settle_epochs=10,
        rules=dict(divisor=8, min_mlp_dim=32),
        shrink=0.02,
        report_interval=220,
    ),
]
