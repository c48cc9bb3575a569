# What CASCADE trains with: AdamW at a constant rate. 150 epochs of Synapse:
# 150 x 2211 slices / 24 slices an iteration = 13 819 iterations.
optim_wrapper = dict(
    type='OptimWrapper',
    # no weight decay on norms, biases, position embeddings and tokens
    constructor='mmvitcompress.ViTOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
)
param_scheduler = []

train_cfg = dict(type='IterBasedTrainLoop', max_iters=14000, val_interval=1400)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook',
        by_epoch=False,
        interval=1400,
        max_keep_ckpts=3,
        save_best='mDice',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)

# with tools/train.py --auto-scale-lr: lr x (GPUs x batch_size) / 24
auto_scale_lr = dict(enable=False, base_batch_size=24)
