# Mask2Former finds handwritten digits in scenes made by tools/make_digits.py:
# five minutes on a laptop, from random weights. The control.
_base_ = [
    './_base_/models/mask2former_deit_s.py',
    './_base_/datasets/digits_scenes.py',
    './_base_/schedules/digits_200.py',
    './_base_/default_runtime.py',
]
crop_size = (128, 128)
neck = _base_.model.neck
neck[1].embed_dim = 96
narrow = dict(
    self_attn_cfg=dict(embed_dims=64, num_heads=4),
    ffn_cfg=dict(embed_dims=64, feedforward_channels=128),
)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        arch='vit_micro',
        img_size=crop_size,
        out_indices=(1, 3, 5, 7),
        drop_path_rate=0.0,
    ),
    neck=neck,
    decode_head=dict(
        in_channels=[96] * 4,
        feat_channels=64,
        out_channels=64,
        num_classes=2,
        num_queries=10,
        pixel_decoder=dict(
            encoder=dict(num_layers=2, layer_cfg=narrow),
            positional_encoding=dict(num_feats=32),
        ),
        positional_encoding=dict(num_feats=32),
        transformer_decoder=dict(
            num_layers=3,
            layer_cfg=dict(
                cross_attn_cfg=dict(embed_dims=64, num_heads=4), **narrow
            ),
        ),
        loss_cls=dict(class_weight=[1.0, 1.0, 0.1]),
        train_cfg=dict(num_points=1024),
    ),
)
# nothing is pretrained: one rate for backbone and head
optim_wrapper = _base_.head_optim_wrapper
optim_wrapper.paramwise_cfg.custom_keys.pop('backbone')

# digits are to be found, not to be told apart
ink = dict(dataset=dict(type='mmvitcompress.DigitInkDataset'))
train_dataloader = ink
val_dataloader = ink
test_dataloader = ink
