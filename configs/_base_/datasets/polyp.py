# Polyps in colonoscopy images, PraNet's split: 1450 images of Kvasir and
# CVC-ClinicDB to train; to test, 100 of Kvasir and 62 of CVC-ClinicDB, and all
# 380 of CVC-ColonDB and 196 of ETIS.
#
#   DIR/images/{train,test/{kvasir,clinicdb,colondb,etis}}/*.png
#   DIR/annotations/...   0 = background, 1 = polyp
#
# Made by tools/convert_medical.py polyp.
#
# The data lie elsewhere? Set POLYP_ROOT; docs/usage.md, 'Where data lie'.
dataset_type = 'mmvitcompress.PolypDataset'
data_root = '{{$POLYP_ROOT:data/polyp}}'
image_size = (352, 352)

# resized without regard to the ratio and not augmented, as by PraNet and
# CASCADE; the model draws the size of each batch
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
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
    batch_size=16,  # on one GPU
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='images/train', seg_map_path='annotations/train'
        ),
        pipeline=train_pipeline,
    ),
)
# all four, each reported by itself; there is no validation set, and the
# published figures are those of the best epoch on the tests
val_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='images/test', seg_map_path='annotations/test'
        ),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

# mDice: mean over all images; mDice.<data set>: over those of one;
# mDice.subsets: mean of the four
val_evaluator = dict(
    type='mmvitcompress.DiceMetric', level='image', subsets=True
)
test_evaluator = val_evaluator
