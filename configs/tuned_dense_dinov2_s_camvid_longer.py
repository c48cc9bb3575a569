# The dense model of tuned_dense_dinov2_s_camvid_fine.py for as long again: the
# backbone at a fifth of its rate, but in all blocks, the head at a tenth. What
# a new head wants costs a pretrained ViT more than it learns.
_base_ = './tuned_dense_dinov2_s_camvid_fine.py'
load_from = 'work_dirs/tuned_dense_dinov2_s_camvid_fine/iter_320.pth'
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    paramwise_cfg=dict(
        layer_decay=1.0, custom_keys=dict(backbone=dict(lr_mult=0.02))
    ),
)
