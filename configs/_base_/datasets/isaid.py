# iSAID: 15 classes and background in aerial images of up to 4000x13000 pixels.
# tools/convert_isaid.py cuts them into 33 978 training and 11 644 validation
# crops of 896x896, which share 384 rows or columns with their neighbours.
#
#   DIR/img_dir/{train,val}/*.png
#   DIR/ann_dir/{train,val}/*_instance_color_RGB.png   0..15 = classes
#
# The data lie elsewhere? Set ISAID_ROOT; docs/usage.md, 'Where data lie'.
# Loaders and metric are folder.py's.
_base_ = './folder.py'
dataset_type = 'mmvitcompress.CheckedISAIDDataset'
data_root = '{{$ISAID_ROOT:data/iSAID}}'
crop_size = (896, 896)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize',
        scale=(896, 896),
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
                for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
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
    batch_size=2,  # per GPU; 4 GPUs x 2 = 8 crops an iteration
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=dict(_delete_=True),  # it knows its own
        data_prefix=dict(
            img_path='img_dir/train', seg_map_path='ann_dir/train'
        ),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=dict(_delete_=True),  # it knows its own
        data_prefix=dict(img_path='img_dir/val', seg_map_path='ann_dir/val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
