# The CASCADE decoder finds handwritten digits in scenes made by
# tools/make_digits.py: minutes on a laptop, from random weights. The control.
_base_ = [
    './_base_/models/cascade_deit_s.py',
    './_base_/datasets/digits_ink.py',
    './_base_/schedules/digits_200.py',
    './_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(
        size=_base_.crop_size, test_cfg=dict(size_divisor=8)
    ),
    backbone=dict(
        arch='vit_micro',
        img_size=_base_.crop_size,
        out_indices=(1, 3, 5, 7),
        drop_path_rate=0.0,
    ),
    neck=dict(embed_dim=96),
    decode_head=dict(
        in_channels=[96] * 4,
        widths=(16, 32, 48, 64),
        stride=2,  # patches of 8 pixels, four times as fine
        num_classes=2,
        out_channels=1,
        threshold=0.5,
        loss_decode=dict(_delete_=True, type='mmvitcompress.StructureLoss'),
    ),
)

val_evaluator = [
    _base_.val_evaluator,
    dict(type='mmvitcompress.DiceMetric', level='image'),
]
test_evaluator = val_evaluator
