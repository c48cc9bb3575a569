# CAIT: DeiT-Tiny with 50.5 % fewer MACs by merged tokens and pruned
# channels, in one run.
_base_ = './cdcp_deit_t_in1k.py'

model = dict(backbone=dict(token_merging=dict(layers=(5, 8))))
custom_hooks = [
    dict(
        type='CDCPHook',
        target=0.505,
        num_classes=1000,
        warmup_epochs=30,
        settle_epochs=100,
        rules=dict(divisor=8),
    ),
]
