# ADE20K, SceneParsing benchmark: 150 classes, 20 210 training and
# 2 000 validation images.
#
# The data lie elsewhere? Set ADE20K_ROOT; docs/usage.md, 'Where data lie'.
# Pipelines, loaders and metric are folder.py's.
_base_ = './folder.py'
# label 0 (other objects) is ignored, the classes 1..150 become 0..149: the
# data set's reduce_zero_label=True
dataset_type = 'mmvitcompress.CheckedADE20KDataset'
data_root = '{{$ADE20K_ROOT:data/ade/ADEChallengeData2016}}'

tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(
                    type='Resize',
                    scale=(int(2048 * ratio), int(512 * ratio)),
                    keep_ratio=True,
                )
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
    batch_size=4,  # per GPU; 8 GPUs x 4 = 32 images an iteration
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=dict(_delete_=True),  # it knows its own
        data_prefix=dict(
            img_path='images/training', seg_map_path='annotations/training'
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=dict(_delete_=True),  # it knows its own
        data_prefix=dict(
            img_path='images/validation', seg_map_path='annotations/validation'
        ),
    ),
)
test_dataloader = val_dataloader
