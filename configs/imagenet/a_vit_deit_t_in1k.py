# A-ViT: each of DeiT-Tiny's tokens stops when its halting scores sum up to 1,
# drawn to block 7.6. In training all are masked; afterwards blocks have room
# for what the Gaussian there leaves: 0.8 GMACs instead of 1.3.
_base_ = './dense_deit_t_in1k.py'

model = dict(
    backbone=dict(
        token_halting=dict(
            depth=7.6,
            rates=(1, 1, 1, 1, 1, 0.99, 0.87, 0.54, 0.17, 0.02, 0.01, 0.01),
        ),
    ),
)
