# 20 classes of Tiny ImageNet, 500 photos of 64×64 px each, in train/<class>/.
# It has no validation set: a tenth is held out by the hash of its file names.
data_root = '{{$TINY_IMAGENET_ROOT:data/tiny_imagenet_20}}'

train_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='TimmDataset',
        data_root=data_root,
        split='train',
        hold_out=0.1,
        transform=dict(
            input_size=64,
            is_training=True,
            scale=(0.35, 1.0),
            color_jitter=0.3,
            interpolation='bicubic',
        ),
    ),
    collate_fn=dict(type='default_collate'),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='TimmDataset',
        data_root=data_root,
        split='train',
        hold_out=0.1,
        held_out=True,
        transform=dict(input_size=64, crop_pct=1.0),
    ),
    collate_fn=dict(type='default_collate'),
)
test_dataloader = val_dataloader
