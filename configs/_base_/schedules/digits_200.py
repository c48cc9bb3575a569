# Digits from random weights: a higher rate, and 200 iterations x 16 images /
# 400 images = 8 epochs.
_base_ = './adamw_160k.py'
optim_wrapper = dict(optimizer=dict(lr=1e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=30, by_epoch=False),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        begin=30,
        end=200,
        by_epoch=False,
    ),
]
train_cfg = dict(max_iters=200, val_interval=100)
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(interval=100, max_keep_ckpts=1)
)
auto_scale_lr = dict(base_batch_size=16)
