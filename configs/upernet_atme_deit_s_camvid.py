# UperNet, DeiT-Small with merged tokens (ATME), CamVid.
_base_ = './upernet_dense_deit_s_camvid.py'
model = dict(
    backbone=dict(
        type='mmvitcompress.ATMEDeiT',
        token_merging=dict(layers=(5, 8)),
        checkpoint='checkpoints/atme_deit_small_in1k.pth',
    )
)
