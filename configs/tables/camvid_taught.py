# As camvid_fine.py, from the dense model that its baseline has become, which
# teaches. The control trains on for as long, as gently, without a teacher.
# CAIT's channels are chosen before the run, on images without labels:
#   python tools/export_pruned.py configs/tuned_dense_dinov2_s_camvid_fine.py
#     work_dirs/tuned_dense_dinov2_s_camvid_fine/iter_320.pth dense.pth
#     --backbone-only
#   mmvitcompress.save(mmvitcompress.compress('dense.pth', (5, 8),
#     channels=dict(target=0.5), calibration=dict(count=40, images=
#     'data/camvid/images/train', img_size=(252, 336))), 'checkpoints/…')
_base_ = './camvid_fine.py'
dense = 'configs/tuned_dense_dinov2_s_camvid_fine.py'
trained = 'work_dirs/tuned_dense_dinov2_s_camvid_fine/iter_320.pth'

common = {
    'load_from': trained,
    # a fifth of the backbone's rate, but for all blocks, and a tenth of the
    # head's: at their first ones both lose more than they learn
    'optim_wrapper.optimizer.lr': 1e-3,
    'optim_wrapper.paramwise_cfg': dict(
        layer_decay=1.0, custom_keys=dict(backbone=dict(lr_mult=0.02))
    ),
}
teacher = dict(
    type='mmvitcompress.TaskTeacherHook', config=dense, checkpoint=trained
)
guided = {
    'model.backbone.restore': False,
    'model.neck': dict(
        _delete_=True, type='mmvitcompress.UnmergeGuided', embed_dim=384
    ),
}
cdcp = _base_.cdcp
rows = {
    'ATME': dict(custom_hooks=[teacher]),
    'ATME-guided': {
        **guided,
        _base_.merged: dict(layers=(4, 7)),
        'custom_hooks': [teacher],
    },
    'ToMe': dict(custom_hooks=[teacher]),
    'CAIT': dict(custom_hooks=[dict(cdcp, increment=0.005), teacher]),
    'CAIT-guided': {
        **guided,
        'load_from': None,
        'model.backbone.checkpoint': 'checkpoints/cait_camvid_small.pth',
        'model.decode_head.init_cfg': dict(
            type='Pretrained', checkpoint=trained, prefix='decode_head.'
        ),
        'custom_hooks': [teacher],
    },
    'CDCP': dict(custom_hooks=[cdcp, teacher]),
    'CAIT-60': dict(
        custom_hooks=[dict(cdcp, target=0.6, increment=0.008), teacher]
    ),
}
