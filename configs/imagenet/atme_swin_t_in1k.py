# ATME: Swin-Tiny with merged tokens. Blocks are those of stage 3.
_base_ = './dense_swin_t_in1k.py'

model = dict(backbone=dict(token_merging=dict(layers=(5, 6))))
