# The dense model of tuned_dense_dinov2_s_camvid_fine.py for as long again, at a
# fifth of the backbone's rate, but for all blocks, and a tenth of the head's:
# the rates that a new head wants cost a pretrained ViT more than it learns.
_base_ = './tuned_dense_dinov2_s_camvid_fine.py'
load_from = 'work_dirs/tuned_dense_dinov2_s_camvid_fine/iter_320.pth'
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    paramwise_cfg=dict(
        layer_decay=1.0, custom_keys=dict(backbone=dict(lr_mult=0.02))
    ),
)
