# ISPRS Potsdam: 24 training and 14 validation images of 6000x6000 pixels of
# 5 cm. MMSegmentation's converter, mmseg/.mim/tools/dataset_converters/
# potsdam.py, cuts them into 3 456 and 2 016 tiles of 512x512.
#
#   DIR/img_dir/{train,val}/*.png
#   DIR/ann_dir/{train,val}/*.png   0 = boundary (ignored), 1..6 = classes
#
# The data lie elsewhere? Set POTSDAM_ROOT; docs/usage.md, 'Where data lie'.
# The layout, pipelines in testing, and loaders are iSAID's.
_base_ = './isaid.py'
dataset_type = 'mmvitcompress.CheckedPotsdamDataset'
data_root = '{{$POTSDAM_ROOT:data/potsdam}}'
crop_size = (512, 512)
# the sixth class, clutter, is neither learnt nor counted
metainfo = dict(
    classes=('impervious_surface', 'building', 'low_vegetation', 'tree', 'car')
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize',
        scale=(512, 512),
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]

train_dataloader = dict(
    batch_size=8,  # on one GPU: an epoch is 3 456 / 8 = 432 iterations
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,  # all tiles have one size
    dataset=dict(type=dataset_type, data_root=data_root, metainfo=metainfo),
)
test_dataloader = val_dataloader

# aAcc is the overall accuracy, mFscore the mean F1
val_evaluator = dict(iou_metrics=['mIoU', 'mFscore'])
test_evaluator = val_evaluator
