# DiffRate: three epochs that learn, with all weights frozen, how many patches
# each of DeiT-Small's blocks prunes and merges to save 41.3 % of the MACs.
# work_dirs/diffrate_deit_s_in1k/learned_arch.json is then an arch for the same
# checkpoint.
_base_ = './dense_deit_s_in1k.py'

model = dict(
    backbone=dict(
        soft_slimming=True,
        token_rates=dict(keep_rate=0.95, target=0.413),
    ),
    distillation=None,
)
epochs = 3
optim_wrapper = dict(optimizer=dict(lr=1e-2, weight_decay=0.0))
param_scheduler = []
train_cfg = dict(max_epochs=epochs, val_interval=1)
custom_hooks = [dict(type='TokenRateHook')]
find_unused_parameters = True  # all weights are frozen
