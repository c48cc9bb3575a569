# UperNet finds handwritten digits in scenes made by tools/make_digits.py: two
# minutes on a laptop, from random weights. The control.
_base_ = [
    './_base_/models/upernet_deit_s.py',
    './_base_/datasets/digits_scenes.py',
    './_base_/schedules/digits_200.py',
    './_base_/default_runtime.py',
]
crop_size = (128, 128)
neck = _base_.model.neck
neck[1].embed_dim = 96
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        arch='vit_micro',
        img_size=crop_size,
        out_indices=(1, 3, 5, 7),
        drop_path_rate=0.0,
    ),
    neck=neck,
    decode_head=dict(in_channels=[96] * 4, channels=32, num_classes=2),
    auxiliary_head=dict(in_channels=96, channels=32, num_classes=2),
)

# digits are to be found, not to be told apart
ink = dict(dataset=dict(type='mmvitcompress.DigitInkDataset'))
train_dataloader = ink
val_dataloader = ink
test_dataloader = ink
