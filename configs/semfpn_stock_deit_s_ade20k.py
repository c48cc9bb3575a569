# Semantic FPN, DeiT-Small without compression, with MMSegmentation's own
# pyramid and head: what the others' speed is measured against. Same weights
# and outputs as semfpn_dense_deit_s_ade20k.py.
_base_ = './semfpn_dense_deit_s_ade20k.py'
model = dict(
    backbone=dict(restore=True),
    neck=[
        dict(
            type='Feature2Pyramid',
            embed_dim=384,
            rescales=[4, 2, 1, 0.5],
            norm_cfg=_base_.norm_cfg,
        ),
        dict(
            type='FPN',
            in_channels=[384, 384, 384, 384],
            out_channels=256,
            num_outs=4,
        ),
    ],
    decode_head=dict(type='FPNHead'),
)
