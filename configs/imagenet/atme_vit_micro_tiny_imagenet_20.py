# ATME: three merges save half of the MACs.
_base_ = './dense_vit_micro_tiny_imagenet_20.py'

model = dict(backbone=dict(token_merging=dict(layers=(3, 5, 7))))
