# What every classification run shares. Schedules count in epochs here.
_base_ = './runtime.py'
default_scope = 'mmvitcompress'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook',
        interval=1,
        max_keep_ckpts=2,
        save_best='top1',
        rule='greater',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)

val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
val_evaluator = dict(type='TopKAccuracy', topk=(1, 5))
test_evaluator = val_evaluator
