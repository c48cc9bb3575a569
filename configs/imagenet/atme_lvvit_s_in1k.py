# ATME: LV-ViT-S with merged tokens.
_base_ = './dense_lvvit_s_in1k.py'

model = dict(backbone=dict(token_merging=dict(layers=(6, 11))))
