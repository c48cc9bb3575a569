# Swin's own training from scratch: 300 epochs of AdamW, 20 of them warm-up.
# Its rate is 5e-4 for 512 images a step; given here for 256.
epochs = 300
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='ViTOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=2.5e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        begin=0,
        end=20,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=2.5e-6,
        begin=20,
        end=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=5)
# lr scales with the images per step where --auto-scale-lr is given
auto_scale_lr = dict(enable=False, base_batch_size=256)
