# Life regression in the task itself, half of the MACs. It starts from the
# dense model trained on the task (load_from); the predictor learns alone for
# 60 iterations, then all else on the patches that stay.
_base_ = './semfpn_dense_dinov2_s_camvid.py'
load_from = 'work_dirs/semfpn_dense_dinov2_s_camvid/iter_320.pth'
model = dict(
    backbone=dict(soft_slimming=True, patch_slimming=dict(keep_rate=0.43))
)
custom_hooks = [
    dict(
        type='mmvitcompress.LifeRegressionHook',
        predictor_iters=60,
        hard_slimming=True,
    ),
]
find_unused_parameters = True  # each stage freezes what the other trains
