# DeiT-Small of half the width, which is DeiT-Tiny, from scratch; see
# scratch_atme_deit_s_in1k.py.
_base_ = './scratch_atme_deit_s_in1k.py'

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True, base='deit_small', embed_dim=192, num_heads=3
        ),
        token_merging=None,
    ),
)
