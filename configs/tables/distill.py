# What matters when a ViT is distilled without labels: ATME from 800 crops, one
# thing changed in each row. Compare by --metric feature_error.
baseline = '../distill/atme_dinov2_s_folder.py'
size = (3, 168, 168)
crops = 'train_dataloader.dataset.transform.'
rates = 'optim_wrapper.paramwise_cfg'
lr = 'optim_wrapper.optimizer.lr'
common = {
    crops + 'input_size': size,
    'val_dataloader.dataset.transform.input_size': size,
    'test_dataloader.dataset.transform.input_size': size,
    'train_dataloader.batch_size': 8,
    'optim_wrapper.type': 'BFloat16OptimWrapper',
    'param_scheduler': [
        dict(
            type='LinearLR', start_factor=1e-3, begin=0, end=10, by_epoch=False
        ),
        dict(
            type='CosineAnnealingLR',
            eta_min=1e-6,
            begin=10,
            end=100,
            by_epoch=False,
        ),
    ],
    'train_cfg.max_iters': 100,
    'train_cfg.val_interval': 100,
    'default_hooks.checkpoint.interval': 100,
}
rows = {
    # learning rates, and those of the merges against the rest
    'lr-2e-5': {lr: 2e-5},
    'lr-5e-5': {lr: 5e-5},
    'lr-1e-4': {lr: 1e-4},
    'lr-4e-4': {lr: 4e-4},
    'lr-8e-4': {lr: 8e-4},
    'merges-x10': {
        rates: dict(custom_keys=dict(token_merging=dict(lr_mult=10)))
    },
    'merges-fixed': {
        rates: dict(custom_keys=dict(token_merging=dict(lr_mult=0)))
    },
    'merges-alone': {
        rates: dict(
            custom_keys=dict(
                backbone=dict(lr_mult=0), token_merging=dict(lr_mult=1)
            )
        )
    },
    'layer-decay': {rates: dict(layer_decay=0.75)},
    # which blocks
    'last-block': {'model.indices': (11,)},
    'every-block': {'model.indices': tuple(range(12))},
    # which loss
    'no-prefix': {'model.weights': dict(prefix=0.0)},
    'merged': {'model.weights': dict(merged=1.0)},
    # crops and images
    'small-crops': {crops + 'scale': (0.05, 1.0)},
    'whole': {crops + 'scale': (1.0, 1.0), crops + 'ratio': (1.0, 1.0)},
    'colours': {crops + 'color_jitter': 0.4},
    'few-images': {'train_dataloader.dataset.hold_out': 0.875},
    '112-px': {
        crops + 'input_size': (3, 112, 112),
        'train_dataloader.batch_size': 18,
    },
}
