# DeiT-Tiny with merged tokens (ATME); made by:
# tools/train.py configs/imagenet/atme_deit_t_in1k.py. From a dense checkpoint
# merges start as means, which costs some quality.
backbone = dict(
    type='mmvitcompress.ATMEDeiT',
    arch='deit_tiny',
    token_merging=dict(
        layers=(4, 8, 10), directions='alternate', first='horizontal'
    ),
    checkpoint='checkpoints/atme_deit_tiny_in1k.pth',
)
