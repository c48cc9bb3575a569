# ACDC cardiac MRI: 3 structures in 100 patients, two volumes each, split as by
# TransUNet and CASCADE: 70 patients to train, 10 to validate, 20 to test.
#
#   DIR/img_dir/{train,val,test}/<case>_slice<number>.png
#   DIR/ann_dir/{train,val,test}/<case>_slice<number>.png  0 = background, 1..3
#
# Made by tools/convert_medical.py acdc.
#
# The data lie elsewhere? Set the environment variable ACDC_ROOT, or
# override data_root where it is used: --cfg-options
#   train_dataloader.dataset.data_root=DIR val_dataloader.dataset.data_root=DIR
#   test_dataloader.dataset.data_root=DIR
# (The variable data_root below is copied when this file is read; to override
# it later has no effect.)
dataset_type = 'mmvitcompress.ACDCDataset'
data_root = '{{$ACDC_ROOT:data/acdc}}'
image_size = (224, 224)

# as TransUNet: half of the slices are turned by right angles and mirrored, a
# quarter is turned by up to 20 degrees
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomChoice',
        transforms=[
            [dict(type='RandomRotFlip', rotate_prob=0.0, flip_prob=1.0)],
            [dict(type='RandomRotate', prob=1.0, degree=20, seg_pad_val=0)],
            [],
        ],
        prob=[0.5, 0.25, 0.25],
    ),
    dict(type='Resize', scale=image_size, keep_ratio=False),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size, keep_ratio=False),
    # after Resize: label maps are compared in their original size
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]

train_dataloader = dict(
    batch_size=12,  # on one GPU
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='img_dir/train', seg_map_path='ann_dir/train'
        ),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=12,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='img_dir/val', seg_map_path='ann_dir/val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=12,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='img_dir/test', seg_map_path='ann_dir/test'),
        pipeline=test_pipeline,
    ),
)

# mean over structures of the mean Dice of the volumes
val_evaluator = dict(type='mmvitcompress.DiceMetric', level='volume')
test_evaluator = val_evaluator
