# Life regression in the task itself, half of the MACs. It starts from the
# dense model trained on the task (load_from); the predictor learns alone for
# 8000 iterations, then all else on the patches that stay.
_base_ = './semfpn_dense_dinov2_s_ade20k.py'
load_from = 'work_dirs/semfpn_dense_dinov2_s_ade20k/iter_80000.pth'
model = dict(
    backbone=dict(soft_slimming=True, patch_slimming=dict(keep_rate=0.48))
)
custom_hooks = [
    dict(
        type='mmvitcompress.LifeRegressionHook',
        predictor_iters=8000,
        hard_slimming=True,
    ),
]
find_unused_parameters = True  # each stage freezes what the other trains
