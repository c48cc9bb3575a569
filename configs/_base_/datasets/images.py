# Images of your own without labels, in a folder and the folders in it. DIR is
# data/images, or what the environment variable IMAGES_ROOT names. A twentieth
# of them, chosen by the hash of the file names, is kept to validate on.
data_root = '{{$IMAGES_ROOT:data/images}}'
size = (3, 224, 224)  # 14x14 patches of 16 px, 16x16 of 14 px

train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='UnlabelledImages',
        data_root=data_root,
        hold_out=0.05,
        transform=dict(
            input_size=size,
            is_training=True,
            scale=(0.3, 1.0),
            color_jitter=None,
            interpolation='bicubic',
        ),
    ),
    collate_fn=dict(type='default_collate'),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='UnlabelledImages',
        data_root=data_root,
        hold_out=0.05,
        held_out=True,
        transform=dict(input_size=size, crop_pct=1.0, interpolation='bicubic'),
    ),
    collate_fn=dict(type='default_collate'),
)
test_dataloader = val_dataloader
