# Cell nuclei of the 2018 Data Science Bowl in COCO form: 1 class, 365 images
# of 256x256 and 320x256 pixels with 32 nuclei each, most of them about 13
# pixels wide. It has no validation set: a fifth is held out by the hash of its
# file names.
#
#   DIR/train/*.png   DIR/annotations/train.json
#
# The data lie elsewhere? Set NUCLEI_ROOT; docs/usage.md, 'Where data lie'.
dataset_type = 'mmvitcompress.NucleiDataset'
data_root = '{{$NUCLEI_ROOT:data/nuclei}}'
scale = (320, 256)
crop_size = (128, 128)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    # masks are run-length encoded
    dict(
        type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=True
    ),
    dict(
        type='RandomResize',
        scale=scale,
        ratio_range=(0.75, 1.5),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=crop_size, recompute_bbox=True),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(2, 2)),
    dict(
        type='RandomFlip',
        prob=[0.25, 0.25, 0.25],
        direction=['horizontal', 'vertical', 'diagonal'],
    ),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=(
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
            'instances',  # the truth for the metric
        ),
    ),
]

train_dataloader = dict(
    batch_size=4,  # an epoch is 287 / 4 = 72 iterations
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train'),
        hold_out=0.2,
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train'),
        hold_out=0.2,
        held_out=True,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

# no ann_file, which would count the training images as well
val_evaluator = dict(type='CocoMetric', metric=['bbox', 'segm'])
test_evaluator = val_evaluator
