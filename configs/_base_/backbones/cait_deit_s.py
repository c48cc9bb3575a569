# DeiT-Small with merged tokens and pruned channels (CAIT); made by:
# tools/train.py configs/imagenet/cait_deit_s_in1k.py, then
# tools/export_pruned.py
#
# The checkpoint brings widths and merges of its own. Those named here, about
# the size that the paper reports (2.1 G MACs and 18.4 M parameters at 224 px),
# stand in where figures are wanted without weights:
# --cfg-options model.backbone.checkpoint=None
backbone = dict(
    type='mmvitcompress.CAITDeiT',
    arch='cait_deit_small',
    checkpoint='checkpoints/cait_deit_small_in1k.pth',
)
