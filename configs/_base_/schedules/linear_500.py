# A linear probe: 500 iterations x 8 images / 367 images of CamVid = 11 epochs.
# Only the head learns, so that its rate is high.
_base_ = './adamw_160k.py'
optim_wrapper = dict(
    type='mmvitcompress.BFloat16OptimWrapper',
    optimizer=dict(lr=1e-2, weight_decay=0.01),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=25, by_epoch=False),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        begin=25,
        end=500,
        by_epoch=False,
    ),
]
train_cfg = dict(max_iters=500, val_interval=500)
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(interval=100, max_keep_ckpts=1)
)
auto_scale_lr = dict(base_batch_size=8)
