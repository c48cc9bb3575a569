# CAIT without labels: 55 % of the MACs, most of them by two merges, the rest
# by channels.
_base_ = './cdcp_deit_s_folder.py'
model = dict(backbone=dict(token_merging=dict(layers=(5, 8))))
custom_hooks = [
    dict(
        type='CDCPHook',
        target=0.55,
        img_size=224,
        warmup=200,
        increment=0.0025,
        interval=40,
        settle=1500,
        rules=dict(divisor=8),
        shrink=0.02,
    ),
]
