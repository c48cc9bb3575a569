# Mask2Former's schedule for COCO: 50 epochs x 117 266 images / 16 images an
# iteration = 366 456 iterations.
epochs = 50
undecayed = dict(decay_mult=0.0)
optim_wrapper = dict(
    type='OptimWrapper',
    # no weight decay on norms, biases, position embeddings and tokens
    constructor='mmvitcompress.ViTOptimWrapperConstructor',
    optimizer=dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05
    ),
    clip_grad=dict(max_norm=0.01, norm_type=2),
    paramwise_cfg=dict(
        custom_keys=dict(
            backbone=dict(lr_mult=0.1),
            query_embed=undecayed,
            query_feat=undecayed,
            level_embed=undecayed,
        )
    ),
)
param_scheduler = [
    dict(
        type='MultiStepLR',
        milestones=[44, 48],
        gamma=0.1,
        begin=0,
        end=epochs,
        by_epoch=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

# with tools/train.py --auto-scale-lr: lr x (GPUs x batch_size) / 16
auto_scale_lr = dict(enable=False, base_batch_size=16)
