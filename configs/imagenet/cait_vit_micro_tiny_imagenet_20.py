# CAIT: half of the MACs, most of them by two merges, the rest by channels.
_base_ = './cdcp_vit_micro_tiny_imagenet_20.py'

model = dict(backbone=dict(token_merging=dict(layers=(4, 6))))
