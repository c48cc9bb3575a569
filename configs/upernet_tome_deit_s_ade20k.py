# UperNet, DeiT-Small whose tokens merge by similarity (ToMe's bipartite
# matching), ADE20K 512x512: what merging by place is compared with. Half of
# the tokens merge in blocks 5 and 8, between attention and MLP, where
# upernet_atme_deit_s_ade20k.py merges before the attention; no layers are
# learned for it.
_base_ = [
    './_base_/models/upernet_tome_deit_s.py',
    './_base_/datasets/ade20k.py',
    './_base_/schedules/adamw_160k.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        token_matching=dict(layers=(5, 8)),
        checkpoint='checkpoints/deit_small_in1k.pth',
    )
)
