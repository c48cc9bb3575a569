# As dinov2_320.py under a linear head, which learns ten times as fast again.
_base_ = './dinov2_320.py'
optim_wrapper = dict(
    optimizer=dict(lr=1e-2),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.01))),
)
