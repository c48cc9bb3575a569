# CDCP without labels: half of the MACs by pruned channels alone, on images of
# your own. 50 growths of 1 % every 40 iterations end at iteration 2 200; in a
# run this short masked columns have to be helped to vanish (shrink).
_base_ = [
    '../_base_/models/distill_vit_b.py',
    '../_base_/schedules/distill_4k.py',
]
model = dict(backbone=dict(compactors=True))
custom_hooks = [
    dict(
        type='CDCPHook',
        target=0.5,
        img_size=224,
        warmup=200,
        increment=0.01,
        interval=40,
        settle=1500,
        rules=dict(divisor=8),
        shrink=0.02,
    ),
]
