# ATME: Swin-Small with merged tokens. Blocks are those of stage 3.
_base_ = './dense_swin_s_in1k.py'

model = dict(backbone=dict(token_merging=dict(layers=(7, 13))))
