# Semantic FPN, DeiT-Small with merged tokens (ATME), on images of your own.
# It starts from the dense checkpoint, so that nothing has to be trained on
# ImageNet first: merges start as means and learn here.
_base_ = './semfpn_dense_deit_s_folder.py'
model = dict(
    backbone=dict(
        type='mmvitcompress.ATMEDeiT', token_merging=dict(layers=(5, 8))
    )
)
