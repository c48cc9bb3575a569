# Mask2Former for instances on a ViT that trains on a laptop, from random
# weights. Patches of 8 pixels make a pyramid of strides 2, 4, 8 and 16.
_base_ = './mask2former_instance_deit_s.py'
num_classes = 1
channels = 64
positions = dict(num_feats=channels // 2)
attention = dict(embed_dims=channels, num_heads=4)
narrow = dict(
    self_attn_cfg=attention,
    ffn_cfg=dict(embed_dims=channels, feedforward_channels=2 * channels),
)
model = dict(
    backbone=dict(
        arch='vit_micro',
        img_size=(128, 128),
        out_indices=(1, 3, 5, 7),
        drop_path_rate=0.0,
    ),
    neck=dict(embed_dim=96),
    panoptic_head=dict(
        in_channels=[96] * 4,
        strides=[2, 4, 8, 16],
        feat_channels=channels,
        out_channels=channels,
        num_things_classes=num_classes,
        pixel_decoder=dict(
            encoder=dict(num_layers=2, layer_cfg=narrow),
            positional_encoding=positions,
        ),
        positional_encoding=positions,
        transformer_decoder=dict(
            num_layers=3, layer_cfg=dict(cross_attn_cfg=attention, **narrow)
        ),
        loss_cls=dict(class_weight=[1.0] * num_classes + [0.1]),
    ),
    panoptic_fusion_head=dict(num_things_classes=num_classes),
    train_cfg=dict(num_points=2048),
)
