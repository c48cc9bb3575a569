# As tiny_imagenet_20.py, for segmentation: every method at the MACs of ATME
# before blocks 5 and 8 under a linear head, fine-tuned for as long on CamVid.
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
matched = 'model.backbone.token_matching'
pruned = {'model.backbone.compactors': True}
learning = {'model.backbone.soft_slimming': True}
rows = {
    'ATME': {merged: dict(layers=(5, 8))},
    'once': {merged: dict(layers=(3,))},
    'ToMe': dict(method='token_matching'),
    'ToMe-same-layers': {matched: dict(layers=(5, 8))},
    'diagonal': {merged: dict(layers=(5, 8), directions='diagonal')},
    'horizontal': {merged: dict(layers=(5, 8), directions='horizontal')},
    'vertical': {merged: dict(layers=(5, 8), directions='vertical')},
    'symmetric': {merged: dict(layers=(7,), directions='symmetric')},
    'CDCP': dict(custom_hooks=[cdcp], **pruned),
    'CAIT': {
        **pruned,
        merged: dict(layers=(6, 9)),
        'custom_hooks': [cdcp | dict(increment=0.004)],
    },
    'DiffRate': dict(method='token_rates'),
    'EViT': {
        'method': 'token_reorganization',
        'custom_hooks': [dict(type='mmvitcompress.KeepRateHook')],
    },
    'DynamicViT': {
        'method': 'token_sparsification',
        'optim_wrapper.paramwise_cfg.predictor': dict(lr=1e-3),
        **learning,
    },
    'Evo-ViT': {
        'method': 'token_evolution',
        'model.backbone.token_evolution.stages': (5, 9),
        'custom_hooks': [dict(type='mmvitcompress.TokenStageHook')],
    },
    'A-ViT': dict(method='token_halting'),
    'LFE': dict(method='token_energy'),
    'life-regression': dict(method='patch_slimming', **learning),
    'magnitude': dict(
        custom_hooks=[scored | dict(criterion='magnitude')], **pruned
    ),
    'Taylor': dict(custom_hooks=[scored | dict(criterion='taylor')], **pruned),
}
