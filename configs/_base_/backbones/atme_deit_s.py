# DeiT-Small with merged tokens (ATME); made by:
# tools/train.py configs/imagenet/atme_deit_s_in1k.py. From a dense checkpoint
# merges start as means, which costs some quality.
#
# 32x32 patches of an image of 512x512 become 32x16 before block 5 and 16x16
# before block 8: 16.9 instead of 31.8 GMACs in the backbone, 46.9 % less.
backbone = dict(
    type='mmvitcompress.ATMEDeiT',
    arch='deit_small',
    token_merging=dict(
        layers=(5, 8), directions='alternate', first='horizontal'
    ),
    checkpoint='checkpoints/atme_deit_small_in1k.pth',
)
