# DynamicViT: before each of three blocks DeiT-Small keeps 70 % of its patches,
# as predictors learn to choose them. Loss: CE + 0.5·KL + 0.5·MSE of patches
# (teacher) + 2·(kept − ρ)².
_base_ = './dense_deit_s_in1k.py'

model = dict(
    backbone=dict(
        soft_slimming=True,
        token_sparsification=dict(
            layers=(4, 7, 10), keep_rate=0.7, ratio_weight=2.0
        ),
    ),
    distillation=dict(
        _delete_=True,
        teacher=_base_.model.distillation.teacher,
        soft=0.5,
        tokens=0.5,
    ),
)
optim_wrapper = dict(paramwise_cfg=dict(predictor=dict(lr=1e-3)))
