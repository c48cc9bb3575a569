# ImageNet-1k as folders: DIR/{train,val}/<class>/*.JPEG. Any other form that
# timm reads does as well: name='wds/…', 'hfds/…', a tar file and so on.
data_root = '{{$IMAGENET_ROOT:data/imagenet}}'

train_dataloader = dict(
    batch_size=256,  # per GPU; CAIT's whole batch (Tiny, Small): one GPU
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='TimmDataset',
        data_root=data_root,
        split='train',
        transform=dict(
            input_size=224,
            is_training=True,
            color_jitter=0.3,
            auto_augment='rand-m9-mstd0.5-inc1',
            interpolation='bicubic',
            re_prob=0.25,
            re_mode='pixel',
        ),
    ),
    collate_fn=dict(type='default_collate'),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='TimmDataset',
        data_root=data_root,
        split='val',
        transform=dict(
            input_size=224, interpolation='bicubic', crop_pct=0.875
        ),
    ),
    collate_fn=dict(type='default_collate'),
)
test_dataloader = val_dataloader
