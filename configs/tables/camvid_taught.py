# As camvid_fine.py, from a dense segmentor, which also teaches; the baseline
# is trained on for as long, without a teacher. Channels of CAIT are chosen
# before the run, on images without labels:
#   python tools/export_pruned.py
#     configs/tuned_dense_dinov2_s_camvid_longer.py
#     work_dirs/tuned_dense_dinov2_s_camvid_longer/iter_320.pth dense.pth
#     --backbone-only
# and in Python
#   small = mmvitcompress.compress('dense.pth', (5, 8),
#     channels=dict(target=0.5), calibration=dict(
#       images='data/camvid/images/train', count=40, img_size=(252, 336)))
#   mmvitcompress.save(small, 'checkpoints/cait_camvid_small.pth')
_base_ = './camvid_fine.py'
baseline = '../tuned_dense_dinov2_s_camvid_longer.py'
dense = 'configs/tuned_dense_dinov2_s_camvid_longer.py'
trained = 'work_dirs/tuned_dense_dinov2_s_camvid_longer/iter_320.pth'
common = dict(load_from=trained)

teacher = dict(
    type='mmvitcompress.TaskTeacherHook', config=dense, checkpoint=trained
)
guided = {
    'model.backbone.restore': False,
    'model.neck': dict(
        _delete_=True, type='mmvitcompress.UnmergeGuided', embed_dim=384
    ),
}
untaught = _base_.rows
rows = {
    'ATME': dict(custom_hooks=[teacher]),
    'ATME-guided': {
        **guided,
        **untaught['ATME'],
        'custom_hooks': [teacher],
    },
    'ToMe': dict(custom_hooks=[teacher]),
    'CAIT-guided': {
        **guided,
        'load_from': None,
        'model.backbone.checkpoint': 'checkpoints/cait_camvid_small.pth',
        'model.decode_head.init_cfg': dict(
            type='Pretrained', checkpoint=trained, prefix='decode_head.'
        ),
        'custom_hooks': [teacher],
    },
    # channels that go in the run
    'CAIT': dict(custom_hooks=[*untaught['CAIT']['custom_hooks'], teacher]),
    'CDCP': dict(custom_hooks=[*untaught['CDCP']['custom_hooks'], teacher]),
    'CAIT-60': dict(
        custom_hooks=[*untaught['CAIT-60']['custom_hooks'], teacher]
    ),
}
