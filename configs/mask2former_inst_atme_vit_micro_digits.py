# Mask2Former for instances on scenes of handwritten digits with merged tokens
# (ATME): 16x16 patches become 16x8 before block 3 and 8x8 before block 6.
_base_ = './mask2former_inst_dense_vit_micro_digits.py'
model = dict(
    backbone=dict(
        type='mmvitcompress.ATMEDeiT', token_merging=dict(layers=(3, 6))
    )
)
