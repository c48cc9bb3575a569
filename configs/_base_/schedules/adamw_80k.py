# 80 000 iterations with AdamW:
# 80 000 iterations x 32 images / 20 210 images of ADE20K = 127 epochs.
_base_ = './adamw_160k.py'
param_scheduler = [
    dict(
        type='LinearLR', start_factor=1e-6, begin=0, end=1500, by_epoch=False
    ),
    dict(
        type='PolyLR',
        power=1.0,
        eta_min=0.0,
        begin=1500,
        end=80000,
        by_epoch=False,
    ),
]
train_cfg = dict(max_iters=80000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000))
