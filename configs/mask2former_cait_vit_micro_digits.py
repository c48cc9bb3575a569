# Mask2Former on scenes of handwritten digits with a compressed backbone
# (CAIT), made by: tools/train.py configs/imagenet/cait_vit_micro_digits.py,
# then tools/export_pruned.py. The checkpoint brings merges and widths.
_base_ = './mask2former_dense_vit_micro_digits.py'
model = dict(
    backbone=dict(
        type='mmvitcompress.CAITDeiT',
        token_merging=dict(layers=(4, 7)),
        checkpoint='checkpoints/cait_vit_micro_digits.pth',
    )
)
