# ATME: DeiT-Tiny with merged tokens.
_base_ = './dense_deit_t_in1k.py'

model = dict(backbone=dict(token_merging=dict(layers=(4, 8, 10))))
