# Scenes of handwritten digits, made by tools/make_digits.py: background and
# 10 digits, 400 training and 100 validation images of 128x128.
#
# The data lie elsewhere? Set DIGITS_ROOT; docs/usage.md, 'Where data lie'.
dataset_type = 'mmvitcompress.DigitScenesDataset'
data_root = '{{$DIGITS_ROOT:data/digits}}'
crop_size = (128, 128)

# no flips: a mirrored 2 is no 2
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize',
        scale=crop_size,
        ratio_range=(0.75, 1.5),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=crop_size),
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
                for ratio in (0.75, 1.0, 1.25)
            ],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]

train_dataloader = dict(
    batch_size=16,  # an epoch is 400 / 16 = 25 iterations
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='scenes/images/training',
            seg_map_path='scenes/annotations/training',
        ),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=10,  # all images have one size
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='scenes/images/validation',
            seg_map_path='scenes/annotations/validation',
        ),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
