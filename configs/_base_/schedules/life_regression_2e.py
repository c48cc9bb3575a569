# Life regression (Algorithm 1): one epoch for the predictor, one for the rest,
# at the paper's rates and its 128 images a step.
epochs = 2
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='ViTOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(predictor=dict(lr=1e-5)),
)
param_scheduler = []
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=1)
custom_hooks = [dict(type='LifeRegressionHook', predictor_epochs=1)]
find_unused_parameters = True  # each stage freezes what the other trains
auto_scale_lr = dict(enable=False, base_batch_size=128)
