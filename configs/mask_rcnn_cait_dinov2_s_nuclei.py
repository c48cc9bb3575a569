# Merged tokens and pruned channels (CAIT) in the task itself: merges before
# blocks 6 and 9 save 41 % of the backbone's MACs at 560x448, channels that
# vanish in the run the rest to 50 %. tools/export_pruned.py makes the small
# detector.
#
# Of 576 iterations 36 come before the first channel goes, and 216 after the
# last: in a run this short masked columns are helped to vanish (shrink).
_base_ = './mask_rcnn_dense_dinov2_s_nuclei.py'
model = dict(backbone=dict(compactors=True, token_merging=dict(layers=(6, 9))))
custom_hooks = [
    dict(
        type='mmvitcompress.CDCPHook',
        target=0.5,
        img_size=(448, 560),
        warmup_epochs=0.5,
        increment=0.01,
        interval=10,
        settle_epochs=3,
        shrink=0.02,
        report_interval=72,
    ),
]
