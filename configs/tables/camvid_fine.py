# Half of the MACs and less under a linear head, CamVid in windows of 252x336
# out of 672x504, so that merged tokens cover what patches cover in camvid.py.
_base_ = '../_base_/schedules/cdcp_320.py'
baseline = '../tuned_dense_dinov2_s_camvid_fine.py'
target = 0.5

cdcp = _base_.custom_hooks[0]
merged = 'model.backbone.token_merging'
pruned = {'model.backbone.compactors': True}
rows = {
    'ATME': {merged: dict(layers=(4, 7))},
    'ToMe': {
        'model.backbone.token_matching': dict(macs_of=dict(layers=(4, 7)))
    },
    # two merges save 45 %, channels the rest
    'CAIT': {
        **pruned,
        merged: dict(layers=(5, 8)),
        'custom_hooks': [dict(cdcp, increment=0.005)],
    },
    'CDCP': dict(custom_hooks=[cdcp], **pruned),
    'life-regression': {
        'method': 'patch_slimming',
        'model.backbone.soft_slimming': True,
    },
    # 51 % by merges, 9 by channels
    'CAIT-60': {
        **pruned,
        merged: dict(layers=(4, 7)),
        'custom_hooks': [dict(cdcp, target=0.6, increment=0.008)],
    },
}
