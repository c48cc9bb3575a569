# UperNet, DeiT-Small with merged tokens and pruned channels (CAIT), CamVid.
_base_ = './upernet_dense_deit_s_camvid.py'
model = dict(
    backbone=dict(
        type='mmvitcompress.CAITDeiT',
        arch='cait_deit_small',
        checkpoint='checkpoints/cait_deit_small_in1k.pth',
    )
)
