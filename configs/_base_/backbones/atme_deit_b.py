# DeiT-Base with merged tokens (ATME); made by:
# tools/train.py configs/imagenet/atme_deit_b_in1k.py. From a dense checkpoint
# merges start as means, which costs some quality.
backbone = dict(
    type='mmvitcompress.ATMEDeiT',
    arch='deit_base',
    token_merging=dict(
        layers=(5, 9), directions='alternate', first='horizontal'
    ),
    checkpoint='checkpoints/atme_deit_base_in1k.pth',
)
