# CDCP in the task itself: half of the MACs go by channels, while the segmentor
# learns. tools/export_pruned.py makes the small model.
_base_ = [
    './upernet_dense_dinov2_s_camvid.py',
    './_base_/schedules/cdcp_20k.py',
]
model = dict(backbone=dict(compactors=True))
