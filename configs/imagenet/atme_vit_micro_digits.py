# ATME on the digits classifier: two merges save a third of the MACs.
_base_ = './pretrain_vit_micro_digits.py'

model = dict(
    backbone=dict(
        token_merging=dict(layers=(4, 7)),
        checkpoint='work_dirs/pretrain_vit_micro_digits/epoch_45.pth',
    ),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
