# From scratch: 600 epochs of AdamW, 5 of them warm-up. DeiT's rate is 5e-4 for
# 512 images a step; given here for 256.
epochs = 600
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='ViTOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=2.5e-4, weight_decay=0.05),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=4e-3,  # from 1e-6
        begin=0,
        end=5,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        begin=5,
        end=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=5)
# lr scales with the images per step where --auto-scale-lr is given
auto_scale_lr = dict(enable=False, base_batch_size=256)
