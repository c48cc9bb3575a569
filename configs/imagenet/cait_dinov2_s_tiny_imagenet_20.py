# CAIT: merges before blocks 5 and 8 save 42 % of the MACs, channels that go
# during the training the rest of 50 %.
_base_ = './cdcp_dinov2_s_tiny_imagenet_20.py'
model = dict(backbone=dict(token_merging=dict(layers=(5, 8))))
