# Synapse multi-organ CT: 8 organs; 18 volumes, 2211 slices, to train and 12,
# 1568 slices, to validate.
#
#   DIR/img_dir/{train,val}/<case>_slice<number>.png
#   DIR/ann_dir/{train,val}/<case>_slice<number>.png  0 = background, 1..8
#
# Made by mmseg's tools/dataset_converters/synapse.py, whose images end in
# .jpg, or by tools/convert_medical.py synapse.
#
# The data lie elsewhere? Set SYNAPSE_ROOT; docs/usage.md, 'Where data lie'.
dataset_type = 'mmvitcompress.CheckedSynapseDataset'
data_root = '{{$SYNAPSE_ROOT:data/synapse}}'
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
    batch_size=24,  # on one GPU
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
    batch_size=24,
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
test_dataloader = val_dataloader

# mean over organs of the mean Dice of the volumes that have it; published
# tests count a missing organ too: absent='transunet'
val_evaluator = dict(type='mmvitcompress.DiceMetric', level='volume')
test_evaluator = val_evaluator
