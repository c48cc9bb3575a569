# CAIT's fine-tuning (Table II): 300 epochs of AdamW at batch 256.
epochs = 300
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='ViTOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
)
param_scheduler = [
    # ends low enough for masked columns to settle at zero
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        begin=0,
        end=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=5)
# lr scales with the images per step where --auto-scale-lr is given
auto_scale_lr = dict(enable=False, base_batch_size=256)
