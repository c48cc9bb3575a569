# CAIT: LV-ViT-S with 50 % fewer MACs by merged tokens and pruned
# channels, in one run.
_base_ = './cdcp_lvvit_s_in1k.py'

model = dict(backbone=dict(token_merging=dict(layers=(6, 11))))
custom_hooks = [
    dict(
        type='CDCPHook',
        target=0.5,
        num_classes=1000,
        warmup_epochs=30,
        settle_epochs=100,
        rules=dict(divisor=8),
    ),
]
