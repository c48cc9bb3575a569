# Mask2Former on a ViT that trains on a laptop. Patches of 8 pixels make a
# pyramid of strides 2, 4, 8 and 16.
_base_ = './mask2former_deit_s.py'
narrow = dict(
    self_attn_cfg=dict(embed_dims=64, num_heads=4),
    ffn_cfg=dict(embed_dims=64, feedforward_channels=128),
)
model = dict(
    data_preprocessor=dict(size=(128, 128), test_cfg=dict(size_divisor=16)),
    backbone=dict(
        arch='vit_micro',
        img_size=(128, 128),
        out_indices=(1, 3, 5, 7),
        drop_path_rate=0.0,
    ),
    neck=dict(embed_dim=96),
    decode_head=dict(
        in_channels=[96] * 4,
        strides=[2, 4, 8, 16],
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

# the backbone is small and its weights are far from the task: one rate for
# backbone and head
head_optim_wrapper = _base_.head_optim_wrapper
head_optim_wrapper.paramwise_cfg.custom_keys.pop('backbone')
