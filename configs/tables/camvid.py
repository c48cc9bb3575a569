# As tiny_imagenet_20.py, for segmentation: every method at the MACs of ATME
# before blocks 5 and 8 under a linear head, fine-tuned for as long on CamVid.
_base_ = '../_base_/tables/token_methods.py'
baseline = '../tuned_dense_dinov2_s_camvid.py'
target = 0.45
common = {
    'param_scheduler': [
        dict(
            type='LinearLR', start_factor=1e-3, begin=0, end=10, by_epoch=False
        ),
        dict(
            type='CosineAnnealingLR',
            eta_min=1e-6,
            begin=10,
            end=80,
            by_epoch=False,
        ),
    ],
    'train_cfg.max_iters': 80,
    'train_cfg.val_interval': 80,
    'default_hooks.checkpoint.interval': 80,
}

# channels go within 40 iterations, and vanish in the last 30
cdcp = dict(
    type='mmvitcompress.CDCPHook',
    target=target,
    warmup=10,
    interval=1,
    increment=0.012,
    settle=30,
    shrink=0.2,
)
scored = {k: v for k, v in cdcp.items() if k != 'shrink'}
scored['type'] = 'mmvitcompress.PruningHook'
merged = 'model.backbone.token_merging'
pruned = {'model.backbone.compactors': True}
rows = {
    'once': {merged: dict(layers=(3,))},
    'CDCP': dict(custom_hooks=[cdcp], **pruned),
    'CAIT': {
        **pruned,
        merged: dict(layers=(6, 9)),
        'custom_hooks': [cdcp | dict(increment=0.004)],
    },
    'magnitude': dict(
        custom_hooks=[scored | dict(criterion='magnitude')], **pruned
    ),
    'Taylor': dict(custom_hooks=[scored | dict(criterion='taylor')], **pruned),
}
