# UperNet, DeiT-Small with merged tokens and pruned channels (CAIT), ADE20K
# 512x512.
#
# The checkpoint brings widths and merges of its own. Those of
# 'cait_deit_small', the size that the paper reports, stand in where figures
# are wanted without weights: --cfg-options model.backbone.checkpoint=None.
_base_ = './upernet_dense_deit_s_ade20k.py'
# made by: tools/train.py configs/imagenet/cait_deit_s_in1k.py, then
# tools/export_pruned.py
model = dict(
    backbone=dict(
        type='mmvitcompress.CAITDeiT',
        arch='cait_deit_small',
        checkpoint='checkpoints/cait_deit_small_in1k.pth',
    )
)
