# ATME: DeiT-Small with merged tokens.
_base_ = './dense_deit_s_in1k.py'

model = dict(backbone=dict(token_merging=dict(layers=(5, 8))))
