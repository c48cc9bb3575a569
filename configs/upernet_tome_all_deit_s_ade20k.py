# UperNet, DeiT-Small whose tokens merge by similarity (ToMe), ADE20K 512x512:
# as in ToMe the same number of tokens in every block, so many that the
# backbone needs the MACs of upernet_atme_deit_s_ade20k.py.
_base_ = './upernet_tome_deit_s_ade20k.py'
model = dict(
    backbone=dict(
        token_matching=dict(layers='all', macs_of=dict(layers=(5, 8)))
    )
)
