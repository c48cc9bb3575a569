# STViT-R: Swin-Tiny whose stage 3 is one dumbbell unit: a block in windows,
# two that make semantic tokens, two that run on them, and the recovery.
_base_ = './atme_swin_t_in1k.py'

model = dict(
    backbone=dict(token_merging=None, semantic_tokens=dict(layers=(2,))),
)
