# 36 epochs with AdamW, "3x": Swin's schedule for COCO.
epochs = 36
optim_wrapper = dict(
    type='OptimWrapper',
    # no weight decay on norms, biases and position biases
    constructor='mmvitcompress.ViTOptimWrapperConstructor',
    optimizer=dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05
    ),
)
param_scheduler = [
    dict(
        type='LinearLR', start_factor=1e-3, begin=0, end=1000, by_epoch=False
    ),
    dict(
        type='MultiStepLR',
        milestones=[27, 33],
        gamma=0.1,
        begin=0,
        end=epochs,
        by_epoch=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=3)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

# with tools/train.py --auto-scale-lr: lr x (GPUs x batch_size) / 16
auto_scale_lr = dict(enable=False, base_batch_size=16)
