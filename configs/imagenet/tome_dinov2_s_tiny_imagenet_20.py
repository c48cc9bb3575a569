# ToMe at the MACs of ATME before blocks 4 and 7.
_base_ = './dense_dinov2_s_tiny_imagenet_20.py'
model = dict(backbone=dict(token_matching=dict(macs_of=dict(layers=(4, 7)))))
