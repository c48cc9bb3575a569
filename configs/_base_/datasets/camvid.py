# CamVid: 11 classes, 367 training and 101 validation images of 480x360.
#
#   DIR/images/{train,val}/*.jpg or *.png
#   DIR/annotations/{train,val}/*.png   0..10 = classes, 11 = unlabelled
#
# The data lie elsewhere? Set CAMVID_ROOT; docs/usage.md, 'Where data lie'.
_base_ = './folder.py'  # the layout, loaders and metric
dataset_type = 'mmvitcompress.CamVidDataset'
data_root = '{{$CAMVID_ROOT:data/camvid}}'
scale = (480, 360)
crop_size = (352, 352)  # 22 x 22 patches of 16; an image is 360 high

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize',
        scale=scale,
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale_factor=ratio, keep_ratio=True)
                for ratio in (0.75, 1.0, 1.25, 1.5)
            ],
            [
                dict(type='RandomFlip', prob=0.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
            ],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]

train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=dict(_delete_=True),  # it knows its own
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=dict(_delete_=True),  # it knows its own
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
