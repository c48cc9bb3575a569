# DeiT-Small of 6 blocks from scratch; see scratch_atme_deit_s_in1k.py.
_base_ = './scratch_atme_deit_s_in1k.py'

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, base='deit_small', depth=6),
        token_merging=None,
    ),
)
