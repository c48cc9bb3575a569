# ATME: tokens merge before blocks 4 and 7: -48 % of the MACs at 112x112.
_base_ = './dense_dinov2_s_tiny_imagenet_20.py'
model = dict(backbone=dict(token_merging=dict(layers=(4, 7))))
