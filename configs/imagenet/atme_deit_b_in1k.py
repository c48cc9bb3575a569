# ATME: DeiT-Base with merged tokens.
_base_ = './dense_deit_b_in1k.py'

model = dict(backbone=dict(token_merging=dict(layers=(5, 9))))
