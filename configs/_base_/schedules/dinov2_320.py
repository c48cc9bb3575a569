# Short fine-tuning of a pretrained ViT on few images, for two cores:
# 320 iterations x 4 images / 367 images of CamVid = 3.5 epochs. A new
# head has ten times the rate of the pretrained blocks, early blocks less
# (layer decay). bfloat16 runs on CPUs as well; those without it take float32.
_base_ = './adamw_160k.py'
optim_wrapper = dict(
    type='mmvitcompress.BFloat16OptimWrapper',
    optimizer=dict(lr=2e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        layer_decay=0.75, custom_keys=dict(backbone=dict(lr_mult=0.1))
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=30, by_epoch=False),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        begin=30,
        end=320,
        by_epoch=False,
    ),
]
train_cfg = dict(max_iters=320, val_interval=320)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=40, max_keep_ckpts=1)
)
auto_scale_lr = dict(base_batch_size=4)
