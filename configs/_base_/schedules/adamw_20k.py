# 20 000 iterations with AdamW, for small data sets:
# 20 000 iterations x 8 images / 367 images of CamVid = 436 epochs.
_base_ = './adamw_160k.py'
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, begin=0, end=500, by_epoch=False),
    dict(
        type='PolyLR',
        power=1.0,
        eta_min=0.0,
        begin=500,
        end=20000,
        by_epoch=False,
    ),
]
train_cfg = dict(max_iters=20000, val_interval=2000)
default_hooks = dict(checkpoint=dict(interval=2000))
auto_scale_lr = dict(base_batch_size=8)
