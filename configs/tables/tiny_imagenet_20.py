# CAIT's Tables IX, X, XI, XV and XVI in small: every method at the MACs of
# ATME before blocks 5 and 8, or as near as it comes, fine-tuned for as long
# from one pretrained ViT on 20 classes of Tiny ImageNet. Rows say what changes
# in the baseline, as --cfg-options does.
_base_ = '../_base_/tables/token_methods.py'
baseline = '../imagenet/dense_dinov2_s_tiny_imagenet_20.py'
target = 0.42
common = {
    'train_dataloader.batch_size': 16,
    'optim_wrapper.optimizer.lr': 2e-3,
    'optim_wrapper.paramwise_cfg.custom_keys': dict(
        backbone=dict(lr_mult=0.05)
    ),
    'param_scheduler': [
        dict(
            type='LinearLR', start_factor=1e-3, begin=0, end=12, by_epoch=False
        ),
        dict(
            type='CosineAnnealingLR',
            eta_min=1e-6,
            begin=12,
            end=100,
            by_epoch=False,
        ),
    ],
    'train_cfg': dict(
        _delete_=True,
        type='IterBasedTrainLoop',
        max_iters=100,
        val_interval=100,
    ),
    'default_hooks.checkpoint.by_epoch': False,
    'default_hooks.checkpoint.interval': 100,
    'default_hooks.logger.interval': 20,
    'log_processor': dict(by_epoch=False),
}

# channels go within 50 iterations, and vanish in the last 38
cdcp = dict(
    type='CDCPHook',
    target=target,
    num_classes=20,
    warmup=12,
    interval=2,
    increment=0.017,
    settle=38,
    shrink=0.15,
)
scored = {k: v for k, v in cdcp.items() if k not in ('type', 'shrink')}
scored['type'] = 'PruningHook'
pruned = {'model.backbone.compactors': True}
rows = {
    'ToMe-5': {'model.backbone.token_matching': dict(r=5)},
    'ToMe-Param': {'model.backbone.token_matching': dict(r=5, linear_every=3)},
    # XI: what keeps channels consistent
    'CDCP': dict(custom_hooks=[cdcp], **pruned),
    'no-head-level': dict(
        custom_hooks=[cdcp | dict(rules=dict(head_level=False))], **pruned
    ),
    'no-attention-level': dict(
        custom_hooks=[cdcp | dict(rules=dict(attention_level=False))], **pruned
    ),
    # XVI: how channels are chosen
    'magnitude': dict(
        custom_hooks=[scored | dict(criterion='magnitude')], **pruned
    ),
    'whole-heads': dict(
        custom_hooks=[
            scored | dict(criterion='magnitude', rules=dict(whole_heads=True))
        ],
        **pruned,
    ),
    'Taylor': dict(custom_hooks=[scored | dict(criterion='taylor')], **pruned),
    'LFS': dict(custom_hooks=[scored | dict(criterion='lfs')], **pruned),
    'random': dict(custom_hooks=[scored | dict(criterion='random')], **pruned),
    # both
    'CAIT': {
        **pruned,
        'model.backbone.token_merging': dict(layers=(6, 9)),
        'custom_hooks': [cdcp | dict(increment=0.004)],
    },
}
