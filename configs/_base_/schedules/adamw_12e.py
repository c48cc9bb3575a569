# 12 epochs with AdamW, "1x" (CAIT IV-B): 12 epochs x 117 266 training images
# of COCO / 16 images an iteration = 87 950 iterations.
epochs = 12
optim_wrapper = dict(
    type='OptimWrapper',
    # no weight decay on norms, biases, position embeddings and tokens. The
    # paper tells of no layer-wise decay of the rate: layer_decay stays at 1;
    # recipes with other pretraining (ViTDet: 0.7) set it in paramwise_cfg.
    constructor='mmvitcompress.ViTOptimWrapperConstructor',
    optimizer=dict(
        type='AdamW', lr=2e-4, betas=(0.9, 0.999), weight_decay=0.05
    ),
    paramwise_cfg=dict(layer_decay=1.0),
)
param_scheduler = [
    dict(
        type='LinearLR', start_factor=1e-3, begin=0, end=1000, by_epoch=False
    ),
    dict(
        type='MultiStepLR',
        milestones=[8, 11],
        gamma=0.1,
        begin=0,
        end=epochs,
        by_epoch=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

# with tools/train.py --auto-scale-lr: lr x (GPUs x batch_size) / 16
auto_scale_lr = dict(enable=False, base_batch_size=16)
